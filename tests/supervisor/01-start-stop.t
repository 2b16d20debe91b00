#!/usr/bin/env perl

# The plain life: start in order, status, signals, stop in reverse order, nothing left behind.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

subtest 'ready before what depends on it; stopped after it' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		# back says that it is ready only after the test told it to.
		my $back = $pod->script(back => <<'CODE');
use Socket;
note("back.$ENV{N} up");
$SIG{TERM} = sub { note("back.$ENV{N} down"); exit 0 };
select undef, undef, undef, 0.01 while !-e "$T/go";
socket my $s, AF_UNIX, SOCK_DGRAM, 0 or die $!;
send $s, "STATUS=x\nREADY=1\n", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET}) or die $!;
note("back.$ENV{N} ready");
sleep 1000;
CODE
		my $front = $pod->script(front => <<'CODE');
note('front up');
$SIG{TERM} = sub { note('front told') };
$SIG{USR1} = sub { note('front down'); exit 0 };
sleep 1 while 1;
CODE
		return <<CONF;
[program:front]
command=$front
depends_on=back
startsecs=0
[program:back]
command=$back
numprocs=2
environment=N=%(process_num)d
ready=notify
CONF
	});
	$pod->wait_events(2, 'both backs');
	my ($front, $back) = $pod->wait_state(front => 'STOPPED', 'back.0' => 'STARTING');
	is $front->{description}, 'waits for back.0 (STARTING)', 'says what it waits for';
	my ($code) = $pod->ctl('status');
	is $code, 3, 'status: not all is running';
	spew($pod->path('go'), '');
	($code, my $out) = $pod->ctl('status', '--wait=20');
	is $code, 0, 'status --wait: all is running';
	like $out, qr/^front\s+RUNNING/m, 'and so it says';
	$pod->wait_events(5, 'front');
	$pod->process->signal('TERM');
	$pod->wait_events(6, 'front told to stop');
	my %now = $pod->status;
	is join(' ', map { $now{$_}{state} } qw(front back.0 back.1)), 'STOPPING RUNNING RUNNING', 'backs wait for front to go';
	kill 'USR1', $now{front}{pid};
	is $pod->process->wait_exit, 0, 'stopped cleanly';
	my @events = $pod->events;
	is_deeply [ sort @events[ 0, 1 ] ], [ 'back.0 up', 'back.1 up' ], 'backs start together';
	is $events[4], 'front up', 'front when both are ready';
	is $events[6], 'front down', 'front stops first';
	is_deeply [ sort @events[ 7, 8 ] ], [ 'back.0 down', 'back.1 down' ], 'then the backs';
	ok !-e $pod->path('supervisor.sock') && !-e $pod->path('supervisor.notify'), 'no socket file is left';
};

subtest 'priorities order the stop too' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => <<'CODE');
$SIG{TERM} = sub { note("$ENV{SUPERVISOR_PROCESS_NAME} down"); exit 0 };
note("$ENV{SUPERVISOR_PROCESS_NAME} up");
sleep 1000;
CODE
		return join '', map { "[program:$_->[0]]\ncommand=$command\nstartsecs=0\npriority=$_->[1]\n" } [ c => 3 ], [ a => 1 ],
			[ b => 2 ];
	});
	$pod->wait_events(3);
	my @order = grep { /"body":"STARTING"/ } split /\n/, $pod->log;
	is join(' ', map { /"program":"(\w)"/ } @order), 'a b c', 'start by priority';
	is $pod->stop, 0;
	is join(' ', ($pod->events)[ 3 .. 5 ]), 'c down b down a down', 'stop in reverse';
};

subtest 'what a process is given' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => <<'CODE');
note("env $_=" . ($ENV{$_} // '')) for qw(A B FROM_OUTSIDE RUN_DIR SUPERVISOR_PROCESS_NAME SUPERVISOR_GROUP_NAME NOTIFY_SOCKET LISTEN_FDS);
note('argv ' . join '|', @ARGV);
note('pgrp ' . (getpgrp() == $$ ? 'own' : 'other'));
note('stdin ' . readlink '/proc/self/fd/0');
opendir my $d, '/proc/self/fd' or die;
note('fds ' . join ' ', sort { $a <=> $b } grep { /\d/ && $_ != fileno $d } readdir $d);
note('cwd ' . readlink '/proc/self/cwd');
note(sprintf 'umask %03o', umask);
{ open my $s, '<', '/proc/self/status'; # perl itself ignores SIGFPE; 32 and 33 are the C library's own and may come ignored from our parent
note("sig $_") for map { /^(Sig(?:Blk|Ign)):\s*(\w+)/ ? sprintf '%s %x', $1, hex($2) & ~0x180000080 : () } <$s>; }
note('end');
CODE
		return <<CONF;
[supervisord]
environment=A="from the pod",B="base"
[program:p]
command=$command "one two" '%(ENV_FROM_OUTSIDE)s' %(ENV_NOPE:-dflt)s %%
environment=B="own, of %(program_name)s"
directory=/tmp
umask=027
startsecs=0
autorestart=false
CONF
	}, env => { FROM_OUTSIDE => 'out', LISTEN_FDS => 9, NOTIFY_SOCKET => '/nonexistent' });
	my ($p) = $pod->wait_state(p => 'EXITED');
	is $p->{exit_code}, 0, 'exit code';
	my $dir = $pod->dir;
	is_deeply [ $pod->events ], [
		'env A=from the pod', 'env B=own, of p', 'env FROM_OUTSIDE=out', "env RUN_DIR=$dir", 'env SUPERVISOR_PROCESS_NAME=p',
		'env SUPERVISOR_GROUP_NAME=p', 'env NOTIFY_SOCKET=', 'env LISTEN_FDS=', 'argv one two|out|dflt|%', 'pgrp own',
		'stdin /dev/null', 'fds 0 1 2', 'cwd /tmp', 'umask 027', 'sig SigBlk 0', 'sig SigIgn 0', 'end',
	], 'environment, arguments, descriptors, directory, umask, signals';
	my ($code) = $pod->ctl('status');
	is $code, 0, 'a task that ended well is well';
	is $pod->stop, 0;
};

subtest 'signals are forwarded' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => <<'CODE');
$SIG{$_} = sub { note("got $_[0]") } for qw(HUP USR1 USR2 WINCH);
note('up');
sleep 1 while 1;
CODE
		return "[program:p]\ncommand=$command\nstartsecs=0\n[program:plain]\ncommand=sleep 1000\nstartsecs=0\n";
	});
	$pod->wait_events(1);
	my $count = 1;
	# USR2 reopens logs, as in supervisord; so it would come first if it were forwarded.
	$pod->process->signal('USR2');
	for my $signal (qw(HUP USR1 WINCH)) {
		$pod->process->signal($signal);
		my @events = $pod->wait_events(++$count);
		is $events[-1], "got $signal", $signal;
	}
	my ($plain) = $pod->wait_state(plain => 'RUNNING');
	is $plain->{restarts}, 0, 'a program that does not expect them lives on';
	my ($code, $out) = $pod->ctl('signal', 'SIGUSR1', 'p');
	is $code, 0, 'podctl signal';
	my @events = $pod->wait_events(++$count);
	is $events[-1], 'got USR1', 'arrives';
	($code, $out, my $err) = $pod->ctl('signal', 'NONSENSE', 'p');
	is $code, 64, 'no such signal';
	like $err, qr/no such signal/, 'is said';
	is $pod->stop, 0;
};

subtest 'bad configurations start nothing' => sub {
	my $dir = test_path('bad');
	mkdir $dir or die;
	spew("$dir/pod.conf", "[program:a]\ncommand=touch $dir/started\n[program:b]\nstartsecs=soon\ncolour=red\n");
	for my $args ([], ['--check-config']) {
		my $p = process('bad', [ eg_bin('supervisor'), "--config=$dir/pod.conf", @$args ], exit => qr/^78$/, allow => qr/FATAL/,
			env => { RUN_DIR => $dir });
		is $p->wait_exit >> 8, 78, "exit code (@$args)";
		like $p->log, qr{^\Q$dir\E/pod.conf:4: error: startsecs: "soon"}m, 'the bad value';
		like $p->log, qr{^\Q$dir\E/pod.conf:5: warning: colour: not a known key}m, 'the unknown key';
		like $p->log, qr{^\Q$dir\E/pod.conf:3: error: \[program:b\] has no command}m, 'what is missing';
		ok !-e "$dir/started", 'nothing was started';
	}
	my $p = process('absent', [ eg_bin('supervisor'), '--config=/nonexistent/pod.conf' ], exit => qr/^78$/, allow => qr/FATAL/);
	is $p->wait_exit >> 8, 78, 'no such file';
	like $p->log, qr{/nonexistent/pod.conf: error: cannot be read: No such file}, 'is said';
};

subtest 'included files' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		mkdir $pod->path('more');
		spew($pod->path('more/b.conf'), "[program:b]\ncommand=sleep 1000\nstartsecs=0\n");
		spew($pod->path('more/c.conf'), "[program:c]\ncommand=sleep 1000\nstartsecs=0\n");
		return "[include]\nfiles=more/*.conf\n[program:a]\ncommand=sleep 1000\nstartsecs=0\n";
	});
	$pod->wait_state(a => 'RUNNING', b => 'RUNNING', c => 'RUNNING');
	is $pod->stop, 0, 'all three ran';
};

subtest '--shutdown-timeout: what does not leave is killed then' => sub {
	my $deaf = sub { my ($pod) = @_; return $pod->script($_[1] => "\$SIG{TERM} = 'IGNORE'; note('$_[1] up'); sleep 1 while 1;") };
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		return join '', "[program:a]\ncommand=@{[ $deaf->($pod, 'a') ]}\nstartsecs=0\nstopwaitsecs=1000\n",
			"[program:b]\ncommand=@{[ $deaf->($pod, 'b') ]}\nstartsecs=0\nstopwaitsecs=1000\ndepends_on=a\n";
	}, args => ['--shutdown-timeout=100ms'], process => { exit => qr/^1$/ });
	$pod->wait_events(2);
	my %now = $pod->status;
	$pod->process->signal('TERM');
	is $pod->process->wait_exit >> 8, 1, 'exit code: something had to be killed';
	like $pod->log, qr/not all have stopped within 100 ms/, 'is said';
	ok !kill(0, $now{$_}{pid}), "$_ is gone" for qw(a b);
};

done_testing;
