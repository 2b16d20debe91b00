package EG::Process;

# A program under test: started, watched, stopped; made by daemon(), process() and the fakes of EG::Test,
# which says what it promises.

use strict;
use warnings;
use Fcntl qw(F_DUPFD);
use POSIX ();
use Test::More;

use EG::HTTP;
use EG::RPC;

my @processes;

sub stop_all
{
	my $trouble;
	while (my $p = pop @processes) {
		eval { $p->stop; 1 } or $trouble = $@;
	}
	die $trouble if $trouble;
	return;
}

sub new
{
	my ($class, $name, $command, %o) = @_;
	my $self = bless {
		name => $name, command => $command, args => $o{args} // [], env => $o{env} // {}, allow => $o{allow},
		exit => $o{exit} // qr/^0$/, stop_ms => $o{stop_ms} // $EG::Test::TIMEOUT * 1000, sockets => [], starts => 0,
		log => EG::Test::test_path("$name-" . scalar(@processes) . '.log'), ready => $o{ready},
	}, $class;
	if ($o{http}) {
		$self->{http} = ref $o{http} ? $o{http} : EG::Test::listen_tcp();
		push @{ $self->{sockets} }, [ 'http', $self->{http} ];
	}
	if (defined $o{rpc}) {
		$self->{rpc_path} = EG::Test::test_path($o{rpc});
		push @{ $self->{sockets} }, [ 'rpc', EG::Test::listen_unix($self->{rpc_path}) ];
	}
	push @{ $self->{sockets} }, @{ $o{sockets} // [] };
	$self->{ready} //= $self->{http} ? 'http' : $self->{rpc_path} ? 'rpc' : 0;
	push @processes, $self;
	$self->start;
	return $self;
}

sub name { return $_[0]{name} }
sub pid { return $_[0]{pid} }
sub running { my ($self) = @_; $self->_reap; return defined $self->{pid} }
sub port { return $_[0]{http}->sockport }
sub address { return '127.0.0.1:' . $_[0]->port }
sub url { return 'http://' . $_[0]->address }
sub rpc_path { my ($self) = @_; return $self->{rpc_path} // EG::Test::test_path("$self->{name}.sock") }
sub rpc { my ($self) = @_; return EG::RPC->new($self->rpc_path) }
sub log { my ($self) = @_; return -e $self->{log} ? EG::Test::slurp($self->{log}) : '' }
# The log's JSON lines, decoded.
sub log_lines { my ($self) = @_; return map { /^\{/ ? (eval { EG::Test::json_decode($_) } // ()) : () } split /\n/, $self->log }

sub wait_log
{
	my ($self, $re, $timeout) = @_;
	return EG::Test::until_true(sub { $self->log =~ $re ? ($1 // 1) : 0 }, "$re in the log of $self->{name}", $timeout);
}

# Start (again), with other args or environment if given.
sub start
{
	my ($self, %o) = @_;
	die "$self->{name} runs already" if $self->{pid};
	$self->{args} = $o{args} if $o{args};
	$self->{env} = $o{env} if $o{env};
	$self->{starts}++;
	# Closed by exec: from then on a signal meets the program, not this code.
	pipe my $executed, my $executing or die "pipe: $!";
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
		eval { $self->_exec; 1 } or print STDERR "exec: $@";
		POSIX::_exit(126);
	}
	$self->{pid} = $pid;
	$self->{killed} = undef;
	close $executing;
	sysread $executed, my $nothing, 1;
	$self->wait_ready;
	return $self;
}

my $setpriv;

sub _exec
{
	my ($self) = @_;
	my %env = map { ($_ => $ENV{$_}) } grep { exists $ENV{$_} }
		qw(PATH HOME TMPDIR LANG EG_BIN EG_TIMEOUT ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS LSAN_OPTIONS);
	$env{UBSAN_OPTIONS} //= 'print_stacktrace=1';
	my $dir = EG::Test::test_dir();
	%env = (
		%env, RUN_DIR => "$dir", LOG_FORMAT => 'json', LAMEDUCK => '0', %{ $self->{env} },
	);
	if (my @sockets = @{ $self->{sockets} }) {
		# Out of the way first: a socket may sit where another one has to go.
		my @high = map { fcntl($_->[1], F_DUPFD, 100) // die "F_DUPFD: $!" } @sockets;
		for my $i (0 .. $#high) {
			POSIX::dup2($high[$i], 3 + $i) // die "dup2: $!";
			POSIX::close($high[$i]);
		}
		$env{LISTEN_FDS} = @sockets;
		$env{LISTEN_FDNAMES} = join ':', map { $_->[0] } @sockets;
		$env{LISTEN_PID} = $$;
	}
	delete $env{$_} for grep { !defined $env{$_} } keys %env;
	open STDIN, '<', '/dev/null' or die $!;
	open STDOUT, '>>', "$self->{log}.out" or die $!;
	open STDERR, '>>', $self->{log} or die $!;
	%ENV = %env;
	my @command = (@{ $self->{command} }, @{ $self->{args} });
	# Nothing outlives the test, not even when it is killed.
	$setpriv //= (grep { -x } map { "$_/setpriv" } split /:/, $ENV{PATH} // '')[0] // '';
	unshift @command, $setpriv, '--pdeathsig', 'KILL', '--' if $setpriv;
	$SIG{PIPE} = 'DEFAULT';
	exec { $command[0] } @command or die "$command[0]: $!";
}

sub wait_ready
{
	my ($self) = @_;
	my $ready = $self->{ready} or return;
	my $check = ref $ready eq 'CODE' ? $ready
		: ref $ready eq 'Regexp' ? sub { $self->log =~ $ready }
		: $ready eq 'rpc' ? sub {
			-S $self->rpc_path && eval { EG::RPC->new($self->rpc_path, timeout => 1)->call('ping'); 1 };
		}
		: sub {
			my $r = eval { EG::HTTP->new($self->url, timeout => 1)->request('GET', '/readyz') };
			$r && $r->{status} == 200;
		};
	eval {
		EG::Test::until_true(
			sub {
				$self->_reap;
				die "$self->{name} ended at start\n" if !$self->{pid};
				$check->();
			},
			"$self->{name} to be ready");
		1;
	} or die "$@--- log of $self->{name}:\n" . substr($self->log, -4000) . "---\n";
	return;
}

# Note an exit that already happened.
sub _reap
{
	my ($self) = @_;
	return if !$self->{pid};
	my $got = waitpid $self->{pid}, POSIX::WNOHANG();
	$self->_ended($?) if $got == $self->{pid};
	return;
}

sub _ended
{
	my ($self, $status) = @_;
	$self->{pid} = undef;
	$self->{status} = $status;
	my $text = $status & 127 ? 'signal ' . ($status & 127) : 'code ' . ($status >> 8);
	my $expected = defined $self->{killed} ? ($status & 127) == $self->{killed}
		: ($status & 127 ? $status & 127 : $status >> 8) =~ $self->{exit};
	fail("$self->{name} ended with $text") , diag($self->_tail) if !$expected;
	$self->check_log;
	return;
}

sub _tail { my ($self) = @_; return "--- end of the log of $self->{name}:\n" . substr($self->log, -3000) }

# Fails the test for what no log may hold.
sub check_log
{
	my ($self) = @_;
	my $log = $self->log;
	my $start = $self->{checked} // 0;
	$self->{checked} = length $log;
	for (split /\n/, substr $log, $start) {
		next if $self->{allow} && $_ =~ $self->{allow};
		next if !/AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|"severitytext":"FATAL"/i;
		fail("$self->{name} logged: $_");
		diag($self->_tail);
		last;
	}
	return;
}

# Wait for the process to end by itself; its wait status.
sub wait_exit
{
	my ($self, %o) = @_;
	$self->{exit} = $o{exit} if $o{exit};
	if ($self->{pid}) {
		EG::Test::until_true(sub { $self->_reap; !$self->{pid} }, "$self->{name} to end", $o{timeout});
	}
	return $self->{status};
}

sub signal { my ($self, $signal) = @_; kill $signal, $self->{pid} or die "kill: $!" if $self->{pid}; return $self }

# SIGTERM, then SIGKILL (a failure) when it does not leave in time. exit => qr// what is expected.
sub stop
{
	my ($self, %o) = @_;
	$self->_reap;
	return $self->{status} if !$self->{pid};
	$self->{exit} = $o{exit} if $o{exit};
	kill 'CONT', $self->{pid};
	kill 'TERM', $self->{pid};
	if (!eval { $self->wait_exit(timeout => $self->{stop_ms} / 1000); 1 }) {
		fail("$self->{name} did not leave after SIGTERM");
		diag($self->_tail);
		$self->kill9;
	}
	return $self->{status};
}

# An expected death by SIGKILL.
sub kill9
{
	my ($self) = @_;
	return if !$self->{pid};
	$self->{killed} = 9;
	kill 'KILL', $self->{pid};
	$self->wait_exit;
	return $self;
}

sub restart { my ($self, %o) = @_; $self->stop; return $self->start(%o) }

package EG::FakeOpenAI;
our @ISA = ('EG::Process');

sub base { return $_[0]->url . '/v1' } # what OPENAI_BASE_URL wants
sub control
{
	my ($self, $method, $path, $object) = @_;
	my $r = EG::HTTP::http($method, $self->url . "/_control/$path", [],
		defined $object ? EG::Test::json_encode($object) : $method eq 'POST' ? '' : undef);
	die "fake_openai: $r->{status} $r->{body}" if $r->{status} != 200;
	return EG::Test::json_decode($r->{body});
}
sub mode { my ($self, %mode) = @_; return $self->control('POST', 'mode', \%mode) }
sub stats { my ($self) = @_; return $self->control('GET', 'stats') }
sub calls { my ($self) = @_; return $self->control('GET', 'stats?brief=1')->{calls} }
sub reset { my ($self) = @_; return $self->control('POST', 'reset') }
sub release { my ($self, $n) = @_; return $self->control('POST', 'release' . (defined $n ? "?count=$n" : '')) }
# wait(calls => 3), wait(aborted => 1), wait(held => 2): until so many were counted.
sub wait { my ($self, $what, $n) = @_; return $self->control('GET', "wait?$what=$n") }

package EG::FakePod;
our @ISA = ('EG::FakeOpenAI');

# The purges that came, oldest first.
sub purges { return @{ $_[0]->stats->{log} } }
sub stats { return $_[0]->control('GET', 'stats') }

package EG::FakeGatewayd;
our @ISA = ('EG::Process');

sub control { my ($self, $method, @params) = @_; return $self->rpc->call($method, \@params) }
sub mode { my ($self, %mode) = @_; return $self->control('_mode', EG::Test::json_encode(\%mode)) }
sub stats { my ($self) = @_; return EG::Test::json_decode($self->control('_stats')) }
# The same without the log, which takes its time when it is long.
sub counters { my ($self) = @_; return EG::Test::json_decode($self->control('_counters')) }
sub wait { my ($self, $what, $n) = @_; return $self->control('_wait', $what, $n + 0) }

1;
