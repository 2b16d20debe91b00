#!/usr/bin/env perl

# The same configuration under Debian's Python supervisord and under ours, through the same events: every
# program must go through the same states in the same order, leave the same files, and stop in the same
# order. Two differences are known, and undone here before the comparison:
#
#   theirs enters BACKOFF once more on the way to FATAL; ours goes there directly
#   theirs restarts a program for every changed key; ours takes over what only guides the supervisor
#   (stopwaitsecs, priority ...) without a restart, so only keys that a process depends on change here

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my ($supervisord, $supervisorctl) = map { my $p = $_; (grep { -x } map { "$_/$p" } split /:/, $ENV{PATH})[0] // '' }
	qw(supervisord supervisorctl);
plan skip_all => 'the package supervisor is missing' if !$supervisord || !$supervisorctl;

# ---- one interface to both ----

{
	package Theirs;
	our @ISA = ('Pod');

	sub new
	{
		my ($class, $conf) = @_;
		my $dir = EG::Test::test_path('theirs');
		mkdir $dir or die;
		my $self = bless { dir => $dir }, $class;
		EG::Test::spew("$dir/pod.conf", $conf->($self));
		EG::Test::spew("$dir/listener.pl", <<'CODE');
$| = 1;
open my $out, '>>', $ARGV[0] or die;
$out->autoflush(1);
print "READY\n";
while (my $header = <STDIN>) {
	my ($len) = $header =~ /len:(\d+)/ or die;
	my ($name) = $header =~ /eventname:PROCESS_STATE_(\w+)/ or die;
	read STDIN, my $body, $len;
	my ($process, $group) = $body =~ /processname:(\S+) groupname:(\S+)/ or die;
	print $out "$group $process $name\n";
	print "RESULT 2\nOKREADY\n";
}
CODE
		EG::Test::spew("$dir/main.conf", <<CONF);
[supervisord]
nodaemon=true
logfile=$dir/supervisord.log
pidfile=$dir/pid
childlogdir=$dir
[unix_http_server]
file=$dir/ctl.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://$dir/ctl.sock
[eventlistener:listener]
command=$^X -MIO::Handle $dir/listener.pl $dir/states
events=PROCESS_STATE
buffer_size=1000
priority=-10
[include]
files=$dir/pod.conf
CONF
		$self->{process} = EG::Test::process('supervisord', [$supervisord], ready => 0, args => [ '-c', "$dir/main.conf" ],
			allow => qr/./, env => { SHARED => 'from outside' });
		EG::Test::until_true(sub { -S "$dir/ctl.sock" }, 'the socket of supervisord');
		return $self;
	}

	sub control { my ($self, @args) = @_; return scalar `$supervisorctl -c $self->{dir}/main.conf @args 2>&1` }
	# As its events tell; a program without any is asked for.
	sub state
	{
		my ($self, $name) = @_;
		my ($last) = EG::Test::slurp("$self->{dir}/states") =~ /.*^\S+ \Q$name\E (\w+)$/ms;
		return $last // ($self->control(status => $self->their_name($name)) =~ /^\S+\s+([A-Z]+)/ ? $1 : 'unknown');
	}
	sub knows { my ($self, $name) = @_; return $self->control(status => $self->their_name($name)) !~ /no such/ }
	sub pids { my ($self) = @_; return map { /^(?:\w+:)?(\w+)\s+\w+\s+pid (\d+),/ ? ($1 => $2) : () } split /\n/, $self->control('status') }
	sub start { my ($self, @names) = @_; return $self->control(start => map { $self->their_name($_) } @names) }
	sub halt { my ($self, @names) = @_; return $self->control(stop => map { $self->their_name($_) } @names) }
	sub reload { my ($self) = @_; return $self->control('reread') . $self->control('update') }
	# They call a process of a group group:name, whatever its name.
	sub their_name { my ($self, $name) = @_; return $name =~ /^(num)_/ ? "$1:$name" : $name }

	sub states
	{
		my ($self) = @_;
		my %states;
		for (split /\n/, EG::Test::slurp("$self->{dir}/states")) {
			my ($group, $process, $state) = split ' ';
			my $label = index($process, $group) == 0 ? $process : "$group:$process";
			# Its way to FATAL leads through one more BACKOFF.
			pop @{ $states{$label} } if $state eq 'FATAL' && $states{$label}[-1] eq 'BACKOFF';
			push @{ $states{$label} }, $state if $label ne 'listener';
		}
		return map { ($_ => join ' ', @{ $states{$_} }) } keys %states;
	}
}

{
	package Ours;
	our @ISA = ('Pod');

	sub state { my ($self, $name) = @_; my %now = $self->status; return $now{$name} ? $now{$name}{state} : 'unknown' }
	sub knows { my ($self, $name) = @_; my %now = $self->status; return !!$now{$name} }
	sub pids { my ($self) = @_; my %now = $self->status; return map { $now{$_}{pid} ? (s/.*://r => $now{$_}{pid}) : () } keys %now }
	sub start { my ($self, @names) = @_; return ($self->ctl('start', @names))[1] }
	sub halt { my ($self, @names) = @_; return ($self->ctl('stop', @names))[1] }
	sub reload { my ($self) = @_; my (undef, $out, $err) = $self->ctl('reload'); return $out . $err }

	sub states
	{
		my ($self) = @_;
		my %states;
		for my $line ($self->{process}->log_lines) {
			push @{ $states{ $line->{program} } }, $line->{body} if $line->{before};
		}
		return map { ($_ => join ' ', @{ $states{$_} }) } keys %states;
	}
}

# ---- the configuration ----

sub conf
{
	my ($self) = @_;
	my %script = (
		exits => 'my ($after, @codes) = @ARGV; open my $f, "<", "$T/events"; my $n = grep { /^\Q$ENV{SUPERVISOR_PROCESS_NAME} up\E/ } <$f>;'
			. ' select undef, undef, undef, $after; exit $codes[$n - 1] if $n <= @codes; sleep 1000;',
		term => '$SIG{TERM} = sub { note("$ENV{SUPERVISOR_PROCESS_NAME} down"); exit 0 }; note("$ENV{SUPERVISOR_PROCESS_NAME} ready"); sleep 1 while 1;',
		deaf => '$SIG{TERM} = "IGNORE"; note("$ENV{SUPERVISOR_PROCESS_NAME} ready"); sleep 1 while 1;',
		family => 'my $pid = fork // die; if (!$pid) { note("child $$"); sleep 1000 } note("$ENV{SUPERVISOR_PROCESS_NAME} ready"); waitpid $pid, 0; sleep 1000;',
		prints => 'for (1 .. 40) { syswrite STDOUT, "x" x 1499 . "\n"; select undef, undef, undef, 0.05 } print STDERR "on stderr\n"; note("$ENV{SUPERVISOR_PROCESS_NAME} ready"); sleep 1000;',
		tells => 'use Cwd; printf "%s %s %s %03o %s %s\n", map({ $_ // "-" } @ENV{qw(SETTING SHARED SUPERVISOR_GROUP_NAME)}), umask, getcwd, "@ARGV";'
			. ' note("$ENV{SUPERVISOR_PROCESS_NAME} ready"); sleep 1000;',
		mended => 'exit 1 if !-e "$T/mended"; sleep 1000;',
	);
	my %c = map { ($_ => $self->script($_, "note(\"\$ENV{SUPERVISOR_PROCESS_NAME} up\"); $script{$_}")) } keys %script;
	return <<CONF;
; As people write them. Theirs looks once a second, so whatever is to end too soon gets two.
[program:plain]
command=sleep 1000                ; a comment
[program:crashes]
command=$c{exits} 2.5 3 2
startsecs=2
exitcodes=0,2
[program:always]
command=$c{exits} 0 0 0
startsecs=0
autorestart=true
[program:never]
command=$c{exits} 0 1
startsecs = 0
autorestart = false
[program:fatal]
command=$c{mended}
startsecs=2
startretries=2
[program:missing]
command=/nonexistent/program
startretries=1
[program:backoff]
command=$c{exits} 0 @{[ (1) x 50 ]}
startsecs=30
startretries=100
[program:deaf]
command=$c{deaf}
startsecs=0
stopwaitsecs=1
[program:killed]
command=$c{deaf}
startsecs=0
stopsignal=KILL
[program:family]
command=$c{family}
startsecs=0
stopasgroup=true
killasgroup=true
[program:manual]
command=sleep 1000
autostart=false
startsecs=0
[program:num]
command=$c{term}
process_name=%(program_name)s_%(process_num)02d
numprocs=2
numprocs_start=5
startsecs=0
priority=10
[program:red]
command=$c{term}
startsecs=0
[program:blue]
command=$c{term}
startsecs=0
[group:pair]
programs=red,blue
priority=20
[program:last]
command=$c{term}
startsecs=0
priority=30
[program:rotates]
command=$c{prints}
startsecs=0
redirect_stderr=true
stdout_logfile=%(here)s/%(program_name)s.log
stdout_logfile_maxbytes=2KB
stdout_logfile_backups=3
[program:tells]
command=$c{tells} %(program_name)s %(group_name)s 100%% "two words" 'it''s'
directory=/usr
umask=027
environment=SETTING="a, b",SHARED='%(ENV_SHARED)s'
startsecs=0
stdout_logfile=%(here)s/tells.log
[program:changed]
command=sleep 1000
startsecs=0
[program:removed]
command=$c{term}
startsecs=0
CONF
}

sub changed_conf
{
	my ($conf) = @_;
	$conf =~ s/\[program:removed\].*//s;
	$conf =~ s/(\[program:changed\]\ncommand=sleep) 1000/$1 2000/;
	return "$conf\[program:added]\ncommand=sleep 1000\nstartsecs=0\n[program:added_manual]\ncommand=sleep 1000\nautostart=false\n";
}

# ---- what happens to both ----

sub wait_all
{
	my ($s, %wanted) = @_;
	for my $name (sort keys %wanted) {
		wait_for { my $state = $s->state($name); $state =~ /^(?:$wanted{$name})$/ } ref($s) . ": $name to be $wanted{$name}", 60;
	}
	return;
}

sub wait_event { my ($s, $re) = @_; return wait_for { grep { $_ =~ $re } $s->events } ref($s) . ": $re" }

sub scenario
{
	my ($s) = @_;
	my %seen;
	wait_event($s, qr/^$_ ready/) for qw(deaf killed family num_05 num_06 red blue last rotates tells removed);
	wait_all($s, plain => 'RUNNING', crashes => 'EXITED', never => 'EXITED', missing => 'FATAL', fatal => 'FATAL', always => 'RUNNING',
		backoff => 'BACKOFF|STARTING', manual => 'STOPPED');
	# A crash of what had been up for long enough.
	my %pid = $s->pids;
	kill 'KILL', $pid{plain};
	wait_for { my %now = $s->states; $now{plain} =~ /EXITED STARTING RUNNING$/ } ref($s) . ': plain again';
	# A stop while it waits for its next try.
	wait_all($s, backoff => 'BACKOFF');
	$s->halt('backoff');
	$seen{backoff_stopped} = $s->state('backoff');
	my $child = (map { /^child (\d+)/ } $s->events)[-1];
	$s->halt('deaf', 'killed', 'family');
	ok wait_for { !-e "/proc/$child" || slurp("/proc/$child/stat") =~ /\) Z/ } ref($s) . ': stopasgroup reaches the child';
	$s->start('manual', 'deaf');
	$s->halt('manual');
	spew($s->path('mended'), '');
	$s->start('fatal');
	wait_all($s, fatal => 'RUNNING');
	# Another configuration.
	my @same = qw(plain always fatal num_05 num_06 tells);
	my %before = $s->pids;
	$seen{nothing} = $s->reload =~ /error/i ? 'error' : 'fine';
	is_deeply { $s->pids }, \%before, ref($s) . ': a reload of the same leaves all alone';
	spew($s->path('pod.conf'), changed_conf(slurp($s->path('pod.conf'))));
	$s->reload;
	wait_all($s, added => 'RUNNING', changed => 'RUNNING', added_manual => 'STOPPED', fatal => 'RUNNING');
	ok !$s->knows('removed'), ref($s) . ': removed is forgotten';
	my %after = $s->pids;
	is $after{$_}, $before{$_}, ref($s) . ": $_ is left alone by a reload" for @same;
	isnt $after{changed}, $before{changed}, ref($s) . ': changed is not';
	$seen{logs} = join ' ', map { s{.*/}{}r } sort glob $s->path('rotates.log*');
	$seen{last_lines} = (split /\n/, slurp($s->path('rotates.log')) || slurp($s->path('rotates.log.1')))[-1];
	$seen{told} = slurp($s->path('tells.log'));
	my @before = $s->events;
	my %states = $s->states;
	$s->{process}->stop;
	my @down = grep { /^(?:num_0\d|red|blue|last) down/ } @{ [ $s->events ] }[ @before .. $#{ [ $s->events ] } ];
	# Those of one priority may go in any order.
	$seen{stop_order} = join ' ', map { s/_0\d//r =~ s/red|blue/pair/r } @down;
	return (\%states, \%seen);
}

my ($theirs) = Theirs->new(sub { conf(@_) });
my $ours = Ours->new(sub { conf(@_) }, args => ['--log-level=info'], env => { SHARED => 'from outside' }, process => { exit => qr/^[01]$/, allow => qr/./ });
my ($their_states, $their_seen) = scenario($theirs);
my ($our_states, $our_seen) = scenario($ours);

# How often it came to BACKOFF before it was stopped depends on the clock.
for my $states ($their_states, $our_states) {
	$states->{backoff} =~ s/^STARTING(?: BACKOFF STARTING)* BACKOFF STOPPED$/a way to STOPPED/;
}
is_deeply [ sort keys %$our_states ], [ sort keys %$their_states ], 'the same processes have had states';
is $our_states->{$_}, $their_states->{$_}, "$_: $their_states->{$_}" for sort keys %$their_states;
is $our_seen->{$_}, $their_seen->{$_}, "$_: $their_seen->{$_}" for sort keys %$their_seen;

done_testing;
