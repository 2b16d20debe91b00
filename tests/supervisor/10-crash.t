#!/usr/bin/env perl

# Processes that end when they should not, do not end when they should, or never begin.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

subtest 'kill -9: back at once' => sub {
	my $pod = Pod->new("[program:p]\ncommand=sleep 1000\nstartsecs=0\n");
	my ($p) = $pod->wait_state(p => 'RUNNING');
	my $old = $p->{pid};
	my @ms;
	for (1 .. 5) {
		my $start = Time::HiRes::time();
		kill 'KILL', $old;
		wait_for { ($p) = $pod->wait_state(p => 'RUNNING'); $p->{pid} != $old } 'another process';
		push @ms, (Time::HiRes::time() - $start) * 1000;
		$old = $p->{pid};
	}
	diag sprintf 'back after %.1f to %.1f ms, as seen from outside', (sort { $a <=> $b } @ms)[ 0, -1 ];
	is $p->{restarts}, 5, 'restarts are counted';
	is $p->{exit_code}, 137, 'and the last end is known';
	like $p->{description}, qr/killed by SIGKILL/, 'and told';
	# The budget is 5 ms; a loaded machine gets more, the second of a supervisord never.
	cmp_ok((sort { $a <=> $b } @ms)[0], '<', 100, 'no delay');
	is $pod->stop, 0;
};

subtest 'fast exits: backoff, then FATAL, then start again' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => "note('start');\nexit 3 if !-e \"\$T/good\";\nsleep 1000;\n");
		return "[program:p]\ncommand=$command\nstartretries=3\nrestart_delay=50ms\nstartsecs=2\n";
	});
	my ($p) = $pod->wait_state(p => 'FATAL');
	is scalar $pod->events, 4, 'the first start and three tries';
	is $p->{exit_code}, 3, 'exit code';
	is $p->{description}, 'exited with code 3', 'reason';
	my @backoff = grep { /"body":"BACKOFF"/ } split /\n/, $pod->log;
	is scalar @backoff, 3, 'three times in BACKOFF';
	my $ms = $pod->log_ms(qr/"STARTING".*"STOPPED"/, qr/"FATAL","program"/);
	cmp_ok $ms, '>=', 150, "delays of 0, 50 and 100 ms (took $ms)";
	my ($code, $out) = $pod->ctl('start', 'p');
	is $code, 1, 'podctl start fails as the program does';
	like $out, qr/^p\s+FATAL.*exited with code 3/m, 'and says why';
	spew($pod->path('good'), '');
	($code) = $pod->ctl('start', 'p');
	is $code, 0, 'podctl start of a program that works again';
	$pod->wait_state(p => 'RUNNING');
	is $pod->stop, 0;
};

subtest 'autorestart and exit codes' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => 'note($ENV{SUPERVISOR_PROCESS_NAME}); my ($at, $code) = @ARGV; '
				. 'open my $f, "<", "$T/events"; my $n = grep { /$ENV{SUPERVISOR_PROCESS_NAME}/ } <$f>; '
				. "exit \$code if \$n <= \$at; sleep 1000;\n");
		return <<CONF;
[program:never]
command=$command 9 1
startsecs=0
autorestart=false
[program:expected]
command=$command 9 2
startsecs=0
exitcodes=0,2
[program:unexpected]
command=$command 2 1
startsecs=0
[program:always]
command=$command 2 0
startsecs=0
autorestart=true
CONF
	});
	my ($never, $expected, $unexpected, $always)
		= $pod->wait_state(never => 'EXITED', expected => 'EXITED', unexpected => 'RUNNING', always => 'RUNNING');
	wait_for { my %n = $pod->status; $n{unexpected}{restarts} == 2 && $n{always}{restarts} == 2 } 'two restarts each';
	my %n;
	$n{$_}++ for $pod->wait_events(8);
	is_deeply \%n, { never => 1, expected => 1, unexpected => 3, always => 3 }, 'starts';
	my ($code) = $pod->ctl('status', 'expected');
	is $code, 3, 'a task that ended with another code than 0 is not quite well';
	is $pod->stop, 0;
};

subtest 'a command that is not there, a directory that is not there' => sub {
	my $pod = Pod->new(<<'CONF');
[program:command]
command=/nonexistent/program
startretries=1
restart_delay=1ms
[program:directory]
command=sleep 1
directory=/nonexistent
startretries=0
[program:plain]
command=no-such-command-in-path
startretries=0
CONF
	my ($c, $d, $p) = $pod->wait_state(command => 'FATAL', directory => 'FATAL', plain => 'FATAL');
	is $c->{description}, 'cannot run /nonexistent/program: No such file or directory', 'command';
	is $d->{description}, 'cannot go to directory /nonexistent: No such file or directory', 'directory';
	is $p->{description}, 'cannot run no-such-command-in-path: No such file or directory', 'PATH';
	is $d->{pid}, 0, 'no process';
	is $pod->stop, 0;
};

subtest 'a deaf child is killed after stopwaitsecs, with its group' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => <<'CODE');
$SIG{TERM} = 'IGNORE';
my $pid = fork // die;
note(($pid ? 'parent ' : 'child ') . $$);
sleep 1 while 1;
CODE
		return "[program:p]\ncommand=$command\nstartsecs=0\nstopwaitsecs=0.3\nkillasgroup=true\n";
	});
	my @events = $pod->wait_events(2);
	my ($code, $out) = $pod->ctl('stop', 'p');
	is $code, 0, 'podctl stop';
	like $out, qr/^p\s+STOPPED.*killed by SIGKILL/m, 'killed';
	cmp_ok $pod->log_ms(qr/"STOPPING"/, qr/"STOPPED","program"/), '>=', 299, 'not before its time';
	for (@events) {
		my ($who, $pid) = split ' ';
		ok wait_for { !kill 0, $pid } "$who to go";
	}
	is $pod->stop, 0, 'the end of the pod was clean';
};

subtest 'the end of the pod says that something had to be killed; a second signal hurries' => sub {
	my $conf = sub {
		my ($pod) = @_;
		my $command = $pod->script(p => "\$SIG{TERM} = 'IGNORE'; note('up'); sleep 1 while 1;\n");
		return "[program:p]\ncommand=$command\nstartsecs=0\nstopwaitsecs=@{[ $_[0]{wait} // 1000 ]}\n";
	};
	my $pod = Pod->new($conf, process => { exit => qr/^1$/ });
	$pod->wait_events(1);
	$pod->process->signal('INT');
	$pod->wait_state(p => 'STOPPING');
	# Within half a second it would be the same wish on another way.
	wait_for { $pod->process->signal('INT') if $pod->process->running; !$pod->process->running } 'the end';
	is $pod->process->wait_exit >> 8, 1, 'exit code';
	cmp_ok $pod->log_ms(qr/"STOPPING"/, qr/asked to stop again/), '>=', 499, 'not before half a second';
	unlike $pod->log, qr/"ERROR"/, 'and no error';
};

subtest 'not ready in time' => sub {
	my $pod = Pod->new("[program:p]\ncommand=sleep 1000\nready=notify\nready_timeout=0.1\nstartretries=1\nrestart_delay=1ms\n");
	my ($p) = $pod->wait_state(p => 'FATAL');
	is $p->{description}, 'was not ready within 100 ms', 'reason';
	is scalar(grep { /"process started"/ } split /\n/, $pod->log), 2, 'two tries';
	is $pod->stop, 0;
};

subtest 'exit_on_fatal' => sub {
	my $pod = Pod->new("[supervisord]\nexit_on_fatal=true\n[program:good]\ncommand=sleep 1000\nstartsecs=0\n"
			. "[program:bad]\ncommand=false\nstartretries=0\n", process => { exit => qr/^2$/ }, no_wait => 1);
	is $pod->process->wait_exit >> 8, 2, 'exit code';
	like $pod->log, qr/bad is FATAL: the pod stops/, 'said why';
	like $pod->log, qr/"STOPPED","program":"good"/, 'the others were stopped';
};

done_testing;
