#!/usr/bin/env perl

# podctl: tables, JSON, exit codes, help in need.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my $pod = Pod->new(sub {
	my ($pod) = @_;
	my $slow = $pod->script(slow => <<'CODE');
use Socket;
note("$ENV{SUPERVISOR_PROCESS_NAME} up");
$SIG{TERM} = sub { note("$ENV{SUPERVISOR_PROCESS_NAME} down"); exit 0 };
exit 1 if -e "$T/broken";
socket my $s, AF_UNIX, SOCK_DGRAM, 0 or die $!;
send $s, "READY=1", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET}) or die $!;
sleep 1 while 1;
CODE
	return <<CONF;
[program:w]
command=$slow
numprocs=3
ready=notify
startsecs=0
startretries=0
[program:manual]
command=sleep 1000
autostart=false
startsecs=0
[program:needy]
command=sleep 1000
depends_on=manual
autostart=false
startsecs=0
CONF
});

subtest 'status' => sub {
	my ($code, $out, $err) = $pod->ctl('status', '--wait', 'w');
	is $code, 0, 'exit code';
	my @lines = split /\n/, $out;
	is scalar @lines, 4, 'a head and a line each';
	like $lines[0], qr/^NAME\s+STATE\s+PID\s+UPTIME\s+RESTARTS\s+DETAIL$/, 'head';
	like $lines[1], qr/^w\.0\s+RUNNING\s+\d+\s+\d+ ms\s+0$/, 'line';
	is index($lines[0], 'STATE'), index($lines[2], 'RUNNING'), 'aligned';
	unlike $out, qr/\033/, 'no colours in a pipe';
	($code, $out) = $pod->ctl('status');
	is $code, 3, 'something is not running';
	like $out, qr/^manual\s+STOPPED\s+-\s+-\s+0\s+not started$/m, 'which';
	($code, $out) = $pod->ctl('--json', 'status', 'w.1', 'manual');
	my $json = json_decode($out)->{programs};
	is scalar @$json, 2, 'JSON';
	is_deeply [ map { $_->{name} } @$json ], [ 'w.1', 'manual' ], 'names';
	is_deeply { map { ($_ => $json->[1]{$_}) } qw(state ready pid exit_code error restarts uptime_ms) },
		{ state => 'STOPPED', ready => JSON::PP::false(), pid => 0, exit_code => undef, error => undef, restarts => 0, uptime_ms => 0 },
		'fields';
	like $json->[0]{pid}, qr/^\d+$/, 'pid';
	($code, $out) = $pod->ctl('status', 'nobody', 'w.0');
	is $code, 4, 'unknown name';
	like $out, qr/^nobody.*no such program$/m, 'is said';
};

subtest 'colours on a terminal' => sub {
	plan skip_all => 'script(1) is missing' if !grep { -x "$_/script" } split /:/, $ENV{PATH};
	my $podctl = eg_bin('podctl') . ' --socket ' . $pod->path('supervisor.sock') . ' status w';
	local $ENV{TERM} = 'xterm';
	delete local $ENV{NO_COLOR};
	like `script -qec '$podctl' /dev/null </dev/null`, qr/\033\[32mRUNNING/, 'green';
	local $ENV{NO_COLOR} = 1;
	unlike `script -qec '$podctl' /dev/null </dev/null`, qr/\033\[32m/, 'NO_COLOR';
};

subtest 'rolling restart' => sub {
	my $before = () = $pod->events;
	my ($code, $out) = $pod->ctl('restart', 'w');
	is $code, 0, 'exit code';
	my @events = ($pod->events)[ $before .. $before + 5 ];
	is_deeply \@events, [ map { ("w.$_ down", "w.$_ up") } 0 .. 2 ], 'one after the other';
};

subtest 'a rolling restart stops where it breaks' => sub {
	spew($pod->path('broken'), '');
	my ($code, $out) = $pod->ctl('restart', 'w');
	is $code, 1, 'exit code';
	like $out, qr/^w\.0\s+FATAL/m, 'the first one is broken';
	like $out, qr/^w\.1\s+RUNNING/m, 'the others still run';
	unlink $pod->path('broken');
	($code) = $pod->ctl('start', 'w.0');
	is $code, 0, 'mended';
};

subtest 'start and stop' => sub {
	my ($code, $out) = $pod->ctl('start', 'needy');
	is $code, 1, 'what it depends on is not up';
	like $out, qr/^needy\s+STOPPED.*depends on/m, 'is said';
	($code) = $pod->ctl('start', 'manual');
	is $code, 0, 'start';
	$pod->wait_state(needy => 'RUNNING');
	pass 'and what waited for it';
	($code) = $pod->ctl('stop', 'manual', 'needy');
	is $code, 0, 'stop';
	my %now = $pod->status;
	is "$now{manual}{state} $now{needy}{state}", 'STOPPED STOPPED', 'stopped';
	($code, $out) = $pod->ctl('start', 'nobody');
	is $code, 4, 'unknown name';
};

subtest 'metrics' => sub {
	my $families = EG::RPC->new($pod->path('supervisor.sock'))->call('metrics')->[0];
	my %f = map { ($_->[0] => $_) } @$families;
	my %up = map { ($_->[0][0] => $_->[1]) } @{ $f{supervisor_program_up}[5] };
	is_deeply \%up, { 'w.0' => 1, 'w.1' => 1, 'w.2' => 1, manual => 0, needy => 0 }, 'up';
	my %rss = map { ($_->[0][0] => $_->[1]) } @{ $f{supervisor_program_resident_memory_bytes}[5] };
	cmp_ok $rss{'w.0'}, '>', 1e6, 'memory of a process';
	is $rss{manual}, 0, 'and of none';
};

subtest 'usage' => sub {
	my ($code, $out, $err) = $pod->ctl('--help');
	is $code, 0, '--help';
	like $out, qr/^Usage: podctl/, 'helps';
	for my $args ([], ['frobnicate'], ['start'], [ '--timeout=soon', 'status' ], ['--nonsense'], [ 'signal', 'HUP' ]) {
		($code, $out, $err) = $pod->ctl(@$args);
		is $code, 64, "podctl @$args";
		isnt $err, '', 'says why';
	}
	for ([ [ 'shutdown', 'w' ], qr/shutdown takes no names/ ], [ [ 'reload', 'w' ], qr/reload takes no names/ ], [ [ 'top', 'w' ], qr/top takes no names/ ],
		[ ['tail'], qr/usage: podctl tail \[-f\]/ ], [ [ 'signal', 'NOPE', 'w.0' ], qr/no such signal: NOPE/ ]) {
		my ($args, $why) = @$_;
		($code, $out, $err) = $pod->ctl(@$args);
		is $code, 64, "podctl @$args";
		like $err, $why, 'says why';
	}
	for ([ [ 'status', '--once' ], '--once' ], [ [ '--follow', 'restart', 'w.0' ], '-f, --follow' ], [ [ 'shutdown', '--json' ], '--json' ],
		[ [ 'top', '--tag=x' ], 'an option of purge' ]) {
		my ($args, $option) = @$_;
		($code, $out, $err) = $pod->ctl(@$args);
		my ($command) = grep { !/^-/ } @$args;
		is "$code $err", "64 podctl: $option means nothing to $command; see podctl $command --help\n", "podctl @$args";
	}
	($code, $out) = $pod->ctl('status', '--help');
	is $code, 0, 'help on one command';
	like $out, qr/^Usage: podctl status \[--wait.*^  --wait/ms, 'has its usage and its options';
	unlike $out, qr/--interval|shutdown/, 'and nothing of the others';
	($code) = $pod->ctl('status', 'w.0');
	is $code, 0, 'and nothing was shut down';
};

subtest 'a signal to what does not run' => sub {
	my ($code, $out) = $pod->ctl('signal', 'HUP', 'manual');
	is $code, 1, 'exit code';
	like $out, qr/^manual\s+STOPPED.*not running: no signal was sent$/m, 'is said';
};

subtest 'no supervisor' => sub {
	my ($code, $out, $err) = $pod->ctl('--socket', '/nonexistent/x.sock', 'status');
	is $code, 69, 'exit code';
	like $err, qr/no supervisor is running.*make run/s, 'says what to do';
	($code, $out, $err) = $pod->ctl('--socket', '/nonexistent/x.sock', 'status', '--wait=0.05');
	is $code, 69, 'also after waiting';
};

subtest 'shutdown' => sub {
	my ($code) = $pod->ctl('shutdown');
	is $code, 0, 'answered';
	is $pod->process->wait_exit, 0, 'and done';
};

done_testing;
