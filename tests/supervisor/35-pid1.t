#!/usr/bin/env perl

# As PID 1 of a PID namespace, which is what a container is: orphans, the order of the stop, its time, the
# exit code, and a hundred thousand children.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my @unshare = qw(unshare --user --map-root-user --pid --fork --kill-child --mount-proc);
plan skip_all => 'unshare cannot make a PID namespace here' if system("@unshare true 2>/dev/null") != 0;

{
	package Init;
	our @ISA = ('Pod');
	my $n = 0;

	sub new
	{
		my ($class, $conf, %o) = @_;
		my $dir = EG::Test::test_path('init' . $n++);
		mkdir $dir or die;
		my $self = bless { dir => $dir }, $class;
		EG::Test::spew("$dir/pod.conf", ref $conf ? $conf->($self) : $conf);
		$self->{process} = EG::Test::process('init', [ @unshare, EG::Test::eg_bin('supervisor'), "--config=$dir/pod.conf" ],
			ready => 0, env => { RUN_DIR => $dir }, %o);
		EG::Test::until_true(sub { -S "$dir/supervisor.sock" || !$self->{process}->running }, 'the socket of the supervisor');
		return $self;
	}

	# The supervisor as seen from here: the only child of unshare.
	sub init
	{
		my ($self) = @_;
		my $unshare = $self->{process}->pid;
		return (split ' ', EG::Test::slurp("/proc/$unshare/task/$unshare/children"))[0];
	}

	# [ state, name ] of each child of the supervisor.
	sub children
	{
		my ($self) = @_;
		my $pid = $self->init;
		return map { (eval { EG::Test::slurp("/proc/$_/stat") } // '') =~ /\((.*)\) (\S)/ ? [ $2, $1 ] : () }
			split ' ', EG::Test::slurp("/proc/$pid/task/$pid/children");
	}
	sub descriptors { my ($self) = @_; my @f = glob '/proc/' . $self->init . '/fd/*'; return scalar @f }
	# A signal as a container runtime sends it: to PID 1.
	sub signal_init { my ($self, $name) = @_; kill $name, $self->init or die "kill: $!"; return }
}

subtest 'SIGTERM: all are stopped in reverse order, and what they left behind goes too' => sub {
	my $pod = Init->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => <<'CODE');
my $name = $ENV{SUPERVISOR_PROCESS_NAME};
if (!fork) { setpgrp; if (!fork) { note("orphan of $name"); sleep 1000 } exit }
wait;
$SIG{TERM} = sub { note("$name down"); exit 0 };
note("$name up");
sleep 1 while 1;
CODE
		my $p = sub { "[program:$_[0]]\ncommand=$command\nstartsecs=0\n$_[1]\n" };
		return $p->('base', 'priority=1') . $p->('middle', "priority=2\ndepends_on=base") . $p->('top', "priority=3\ndepends_on=middle");
	});
	$pod->wait_state(map { ($_ => 'RUNNING') } qw(base middle top));
	$pod->wait_events(6);
	is scalar(grep { $_->[0] eq 'Z' } $pod->children), 0, 'the children in between were reaped';
	is scalar($pod->children), 6, 'three programs and three orphans are here';
	my $begin = Time::HiRes::time();
	$pod->signal_init('TERM');
	is $pod->process->wait_exit, 0, 'exit code 0: everything left in time';
	cmp_ok Time::HiRes::time() - $begin, '<', 5, 'at once';
	is_deeply [ grep { /down/ } $pod->events ], [ 'top down', 'middle down', 'base down' ], 'in reverse order';
};

subtest 'exit code 1: something had to be killed, in its time' => sub {
	my $pod = Init->new(sub {
		my ($pod) = @_;
		my $deaf = $pod->script(deaf => "\$SIG{TERM} = 'IGNORE'; note('deaf'); sleep 1 while 1;");
		return "[program:deaf]\ncommand=$deaf\nstartsecs=0\nstopwaitsecs=0.3\n";
	}, exit => qr/^1$/);
	$pod->wait_events(1);
	my $begin = Time::HiRes::time();
	$pod->signal_init('TERM');
	is $pod->process->wait_exit >> 8, 1, 'exit code';
	my $s = Time::HiRes::time() - $begin;
	ok $s >= 0.3 && $s < 5, sprintf 'after its stopwaitsecs (%.2f s)', $s;
};

subtest 'exit code 2: a program went FATAL' => sub {
	my $pod = Init->new("[supervisord]\nexit_on_fatal=true\n[program:bad]\ncommand=false\nstartretries=0\n[program:good]\ncommand=sleep 1000\nstartsecs=0\n",
		exit => qr/^2$/);
	is $pod->process->wait_exit >> 8, 2, 'exit code';
};

subtest 'exit code 0: podctl shutdown' => sub {
	my $pod = Init->new("[program:p]\ncommand=sleep 1000\nstartsecs=0\n");
	my ($code) = $pod->ctl('shutdown');
	is $code, 0, 'podctl';
	is $pod->process->wait_exit, 0, 'exit code';
};

subtest 'signals that are not for it do not end it' => sub {
	my $pod = Init->new("[program:p]\ncommand=sleep 1000\nstartsecs=0\n");
	my ($p) = $pod->wait_state(p => 'RUNNING');
	$pod->signal_init($_) for qw(HUP USR1 USR2 WINCH PIPE CHLD CONT);
	my ($again) = $pod->wait_state(p => 'RUNNING');
	is $again->{pid}, $p->{pid}, 'neither it nor its programs';
	$pod->signal_init('INT');
	is $pod->process->wait_exit, 0, 'SIGINT does';
};

my $rounds = instrumented() ? 10 : 100;
subtest 'children that live shortly, ' . $rounds * 1000 . ' of them' => sub {
	my $tool = "$ENV{EG_TESTS}/supervisor/children_tool";
	my $pod = Init->new("[program:p]\ncommand=$tool $rounds 1000\nstartsecs=0\nstdout_logfile=%(here)s/p.log\n"
			. "[program:sibling]\ncommand=sleep 1000\nstartsecs=0\n[program:crash]\ncommand=sh -c 'exit 3'\nautostart=false\nautorestart=false\nstartsecs=0\n");
	$pod->wait_state(sibling => 'RUNNING');
	# Counted when it is gone: while it runs, its pipes are four descriptors more.
	my $crash = sub { $pod->ctl('start', 'crash'); $pod->wait_state(crash => 'EXITED') };
	$crash->();
	my ($rss, $open) = (EG::Test::rss_kb($pod->init), $pod->descriptors);
	my $asked = 0;
	wait_for { my %now = $pod->status; $asked++; -s $pod->path('p.log') } 'all to be left behind', 120;
	is slurp($pod->path('p.log')), "0 rounds failed\n", 'the kernel had room for each: they were reaped in time';
	cmp_ok $asked, '>', 0, "and the supervisor answered meanwhile ($asked times)";
	ok wait_for { $pod->children == 2 } 'no zombie, no stranger';
	$crash->() for 1 .. 20;
	ok eval { wait_for { $pod->descriptors <= $open } 'the descriptors' }, 'as many descriptors as before'
		or diag "$open before, now:\n", qx(ls -l /proc/@{[ $pod->init ]}/fd);
	cmp_ok EG::Test::rss_kb($pod->init) - $rss, '<', instrumented() ? 20000 : 200, 'KB more';
	my %now = $pod->status;
	is "$now{p}{restarts} $now{sibling}{restarts}", '0 0', 'nobody else\'s end was taken for theirs';
	$pod->signal_init('TERM');
	is $pod->process->wait_exit, 0, 'exit code';
};

done_testing;
