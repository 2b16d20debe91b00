package Pod;

# A real supervisor over a pod.conf written by the test, and what tests ask of it.
#
#   my $pod = Pod->new("[program:a]\ncommand=...\n", env => {}, args => []);
#   my ($a) = $pod->wait_state(a => 'RUNNING');      # status of the process, as podctl --json prints it
#   my ($code, $out, $err) = $pod->ctl('status');
#
# Programs of a test are perl one-liners; $pod->script(name => 'code') writes one and returns its command.

use strict;
use warnings;
use IPC::Open3 qw(open3);
use Symbol qw(gensym);
use Time::HiRes ();

use EG::Test ();

my $n = 0;

sub new
{
	my ($class, $conf, %o) = @_;
	my $dir = EG::Test::test_path('pod' . $n++);
	mkdir $dir or die "$dir: $!";
	my $self = bless { dir => $dir }, $class;
	$conf = $conf->($self) if ref $conf;
	EG::Test::spew("$dir/pod.conf", $conf);
	$self->{process} = EG::Test::process('supervisor', [ EG::Test::eg_bin('supervisor') ], ready => 0, args => [ "--config=$dir/pod.conf", @{ $o{args} // [] } ],
		env => { RUN_DIR => $dir, %{ $o{env} // {} } }, %{ $o{process} // {} });
	return $self if $o{no_wait};
	EG::Test::until_true(sub { -S "$dir/supervisor.sock" || !$self->{process}->running }, 'the socket of the supervisor');
	return $self;
}

sub dir { return $_[0]{dir} }
sub process { return $_[0]{process} }
sub path { my ($self, $name) = @_; return "$self->{dir}/$name" }
sub log { return $_[0]{process}->log }

# $T in the code is the directory of the pod; say() appends a line to the file "events" there.
sub script
{
	my ($self, $name, $code) = @_;
	my $path = $self->path("$name.pl");
	EG::Test::spew($path, <<'HEAD' . $code);
use strict;
use warnings;
use IO::Handle;
our $T;
BEGIN { ($T) = $0 =~ m{^(.*)/}; }
sub note { open my $f, '>>', "$T/events" or die $!; syswrite $f, "@_\n"; close $f; return }
STDOUT->autoflush(1);
HEAD
	return "$^X $path";
}

sub events { my ($self) = @_; return -e $self->path('events') ? split /\n/, EG::Test::slurp($self->path('events')) : () }
sub wait_events
{
	my ($self, $count, $what) = @_;
	EG::Test::until_true(sub { my @e = $self->events; @e >= $count }, $what // "$count events");
	return $self->events;
}

# Run podctl: exit code, stdout, stderr.
sub ctl
{
	my ($self, @args) = @_;
	local $ENV{RUN_DIR} = $self->{dir};
	my $pid = open3(my $in, my $out, my $err = gensym, EG::Test::eg_bin('podctl'), @args);
	close $in;
	local $/;
	my ($o, $e) = (scalar <$out>, scalar <$err>);
	waitpid $pid, 0;
	return ($? >> 8, $o, $e);
}

# name => { state, pid, ... }
sub status
{
	my ($self) = @_;
	my $rpc = EG::RPC->new($self->path('supervisor.sock'));
	my $programs = $rpc->call('status', [ [] ])->[0];
	my @fields = qw(name state ready pid uptime_ms restarts exit_code description error);
	return map {
		my %p;
		@p{@fields} = @$_;
		($p{name} => \%p);
	} @$programs;
}

# Until each process has its state; their status in the order asked for.
sub wait_state
{
	my ($self, @wanted) = @_;
	my %now;
	my @names;
	eval {
		EG::Test::until_true(
			sub {
				%now = $self->status;
				@names = ();
				for (my $i = 0; $i < @wanted; $i += 2) {
					my ($name, $state) = @wanted[ $i, $i + 1 ];
					die "no process $name\n" if !$now{$name};
					return 0 if $now{$name}{state} !~ /^(?:$state)$/;
					push @names, $name;
				}
				return 1;
			},
			"@wanted");
		1;
	} or die "$@ (now: " . join(', ', map { "$_ $now{$_}{state}" } sort keys %now) . ")\n";
	return map { $now{$_} } @names;
}

sub stop { my ($self, %o) = @_; return $self->{process}->stop(%o) }

# Milliseconds between two log lines of the supervisor.
sub log_ms
{
	my ($self, $first, $second) = @_;
	my @times;
	for my $re ($first, $second) {
		my ($line) = grep { $_ =~ $re } split /\n/, $self->log;
		die "no line like $re" if !$line;
		my ($h, $m, $s) = $line =~ /"time":"[^T]*T(\d+):(\d+):([\d.]+)Z/ or die $line;
		push @times, ($h * 3600 + $m * 60 + $s) * 1000;
	}
	return $times[1] - $times[0];
}

1;
