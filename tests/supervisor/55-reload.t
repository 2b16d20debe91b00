#!/usr/bin/env perl

# podctl reload: from one configuration of a running pod to the next, losing nothing.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use IO::Socket::INET;
use POSIX ();
use Pod;

sub pids { my ($pod) = @_; my %now = $pod->status; return map { ($_ => $now{$_}{pid}) } keys %now }
sub reload { my ($pod, $conf, @args) = @_; spew($pod->path('pod.conf'), $conf); return $pod->ctl(@args, 'reload') }

# Empty for the moment between fork and exec.
sub command_line { my ($pid) = @_; return wait_for { my $c = slurp("/proc/$pid/cmdline"); $c =~ /^sleep/ && $c } 'the program to begin' }

subtest 'added, changed, adjusted, removed' => sub {
	my $sleep = "startsecs=0\ncommand=sleep";
	my $pod = Pod->new("[program:same]\n$sleep 1000\n[program:changed]\n$sleep 1000\n[program:adjusted]\n$sleep 1000\n"
		. "[program:removed]\n$sleep 1000\n[program:quiet]\n$sleep 1000\nautostart=false\n");
	$pod->wait_state(map { ($_ => 'RUNNING') } qw(same changed adjusted removed));
	my %before = pids($pod);
	my ($code, $out) = $pod->ctl('reload');
	is "$code $out", "0 nothing has changed\n", 'the same file again';
	is_deeply { pids($pod) }, \%before, 'every process goes on';
	($code, $out, my $err) = reload($pod, "[program:same]\n$sleep 1000\n[program:changed]\n$sleep 2000\n"
			. "[program:adjusted]\n$sleep 1000\nstopwaitsecs=3\npriority=5\n[program:added]\n$sleep 1000\n"
			. "[program:quiet]\n$sleep 3000\nautostart=false\n[program:later]\n$sleep 1000\nautostart=false\n");
	is $code, 0, 'exit code' or diag $err;
	is_deeply [ sort split /\n/, $out ], [ 'added    added', 'added    later', 'adjusted adjusted', 'changed  changed',
		'changed  quiet', 'removed  removed' ], 'what is said';
	my %now = $pod->status;
	is join(' ', map { "$_ $now{$_}{state}" } sort keys %now),
		'added RUNNING adjusted RUNNING changed RUNNING later STOPPED quiet STOPPED same RUNNING', 'states afterwards';
	is $now{$_}{pid}, $before{$_}, "$_ was left alone" for qw(same adjusted);
	isnt $now{changed}{pid}, $before{changed}, 'changed is another process';
	is command_line($now{changed}{pid}), "sleep\x002000\x00", 'by the new command';
	is $now{changed}{restarts}, 0, 'which does not count as a crash';
	ok !-e "/proc/$before{removed}", 'removed is gone when podctl says so';
	($code, $out) = $pod->ctl('start', 'quiet');
	is $code, 0, 'a changed program that was stopped';
	%now = $pod->status;
	is command_line($now{quiet}{pid}), "sleep\x003000\x00", 'starts by the new command';
	($code, $out) = $pod->ctl('status', 'removed');
	is $code, 4, 'removed is not known any more';
	($code, $out) = reload($pod, "[program:same]\n$sleep 1000\n", '--json');
	my ($up) = grep { $_->[0] eq 'supervisor_program_up' } @{ EG::RPC->new($pod->path('supervisor.sock'))->call('metrics')->[0] };
	is_deeply [ map { $_->[0][0] } @{ $up->[5] } ], ['same'], 'no metrics of those that are gone';
	my $json = json_decode($out);
	is_deeply [ sort @{ $json->{removed} } ], [qw(added adjusted changed later quiet)], 'JSON';
	is_deeply [ map { $_->{name} } @{ $json->{programs} } ], ['same'], 'with the programs';
	is $pod->stop, 0;
};

subtest 'a configuration with mistakes changes nothing' => sub {
	my $pod = Pod->new("[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
	$pod->wait_state(a => 'RUNNING');
	my %before = pids($pod);
	my ($code, $out, $err) = reload($pod, "[program:b]\ncommand=sleep 1\nstopsignal=NOPE\n[program:c]\nnumprocs=x\n");
	is $code, 1, 'exit code';
	my $path = $pod->path('pod.conf');
	like $err, qr/^\Q$path\E:3: error: stopsignal: "NOPE" is not a signal/m, 'file, line and a sentence';
	like $err, qr/^\Q$path\E:5: error: numprocs:/m, 'of each';
	is_deeply { pids($pod) }, \%before, 'nothing has changed';
	is $pod->stop, 0;
};

subtest 'what crash-loops is mended by a reload' => sub {
	my $settings = "startretries=1000000\nrestart_delay=10s\nstartsecs=0.2\nnumprocs=2\n";
	my $pod = Pod->new("[program:b]\ncommand=sh -c 'exit 5'\n$settings");
	$pod->wait_state('b.0' => 'BACKOFF', 'b.1' => 'BACKOFF');
	my ($code, $out, $err) = reload($pod, "[program:b]\ncommand=sleep 1005\n$settings");
	is "$code $out$err", "0 changed  b.0\nchanged  b.1\n", 'what is said';
	my %now = $pod->status;
	is $now{$_}{state}, 'RUNNING', "$_ runs" for qw(b.0 b.1);
	is command_line($now{'b.1'}{pid}), "sleep\x001005\x00", 'by the new command';
	is $pod->stop, 0;
};

subtest 'what does not stop a reload is told all the same' => sub {
	my $pod = Pod->new("[program:a]\ncommand=sleep 1000\nstartsecs=0\n");
	$pod->wait_state(a => 'RUNNING');
	my $path = $pod->path('pod.conf');
	my ($code, $out, $err) = reload($pod, "[program:a]\ncommand=sleep 1000\nstartsecs=0\nautorestrat=false\n");
	is "$code $out", "0 nothing has changed\n", 'it is taken over';
	is $err, "podctl: $path:4: warning: autorestrat: not a known key\n", 'file, line and a sentence';
	($code, $out) = $pod->ctl('reload', '--json');
	is_deeply json_decode($out)->{warnings}, ["$path:4: warning: autorestrat: not a known key"], 'JSON';
	is $pod->stop, 0;
};

subtest 'sockets' => sub {
	my ($one, $two) = map { my $s = listen_tcp(); $s->sockport } 1 .. 2;
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		$pod->{server} = $pod->script(server => <<'CODE');
use IO::Socket::INET;
use POSIX ();
open my $h, '+<&=', 3 or die $!;
note("$ENV{NAME} up");
while (accept my $client, $h) { syswrite $client, "$ENV{NAME} $ENV{SETTING}\n"; close $client }
CODE
		return conf($pod, 1, $one, $two);
	});
	sub conf
	{
		my ($pod, $setting, $a, $b) = @_;
		return join '', map { "[program:$_->[0]]\ncommand=$pod->{server}\nstartsecs=0\nenvironment=NAME=$_->[0],SETTING=$setting\n"
				. "sockets=http=127.0.0.1:$_->[1]\n" } [ a => $a ], [ b => $b ];
	}
	my $ask = sub { my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$_[0]") or return "refused: $!"; my $line = <$s> // "cut off"; chomp $line; $line };
	$pod->wait_events(2);
	is $ask->($one), 'a 1', 'before';
	# Clients that connect all the time while the programs are restarted by new settings.
	pipe my $r, my $w or die;
	my $load = fork // die;
	if (!$load) {
		my ($bad, $n, $first) = (0, 0, '');
		$SIG{TERM} = sub { syswrite $w, "$bad $n $first\n"; POSIX::_exit(0) };
		while (1) {
			my $answer = $ask->($one);
			$n++;
			# The old server may end between accept() and its answer: its own doing.
			next if $answer =~ /^a [12]$|^cut off$/;
			$bad++;
			$first ||= $answer;
		}
	}
	my ($code, $out) = reload($pod, conf($pod, 2, $one, $two));
	is "$code $out", "0 changed  a\nchanged  b\n", 'changed settings, the same sockets';
	is $ask->($one), 'a 2', 'after';
	kill 'TERM', $load;
	my $line = <$r>;
	waitpid $load, 0;
	my ($bad, $n, $first) = split ' ', $line, 3;
	cmp_ok $n, '>', 0, "$n connections meanwhile";
	is $bad, 0, "not one refused $first";
	($code, $out) = reload($pod, conf($pod, 2, $two, $one));
	is $code, 0, 'two programs that take each other\'s address';
	is $ask->($two), 'a 2', 'one';
	is $ask->($one), 'b 2', 'the other';
	is $pod->stop, 0;
};

subtest 'a numbered program: more of them, fewer of them, one after the other' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		$pod->{w} = $pod->script(w => <<'CODE');
use Socket;
my $name = $ENV{SUPERVISOR_PROCESS_NAME};
$SIG{TERM} = sub { note("$name down"); exit 0 };
exit 1 if -e "$T/broken";
note("$name up $ENV{V}");
socket my $s, AF_UNIX, SOCK_DGRAM, 0 or die $!;
send $s, "READY=1", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET}) or die $!;
sleep 1 while 1;
CODE
		return workers($pod, 2, 1);
	});
	sub workers { my ($pod, $n, $v) = @_; return "[program:w]\ncommand=$pod->{w}\nnumprocs=$n\nready=notify\nstartsecs=0\nstartretries=0\nenvironment=V=$v\n" }
	$pod->wait_state('w.0' => 'RUNNING', 'w.1' => 'RUNNING');
	my %before = pids($pod);
	my ($code, $out) = reload($pod, workers($pod, 3, 1));
	is "$code $out", "0 added    w.2\n", 'one more';
	my %now = pids($pod);
	is $now{$_}, $before{$_}, "$_ goes on" for qw(w.0 w.1);
	my $seen = () = $pod->events;
	($code, $out) = reload($pod, workers($pod, 2, 2));
	is $code, 0, 'one less, and other settings';
	my @rolled = grep { !/w\.2/ } ($pod->events)[ $seen .. $seen + 4 ];
	is_deeply \@rolled, [ 'w.0 down', 'w.0 up 2', 'w.1 down', 'w.1 up 2' ], 'one after the other';
	%before = pids($pod);
	spew($pod->path('broken'), '');
	($code, $out, my $err) = reload($pod, workers($pod, 2, 3));
	is $code, 1, 'settings that do not work';
	like $err, qr/w\.0 is FATAL/, 'is said';
	%now = $pod->status;
	is $now{'w.1'}{pid}, $before{'w.1'}, 'and end with the first one';
	unlink $pod->path('broken');
	($code) = reload($pod, workers($pod, 2, 4));
	is $code, 0, 'mended';
	is((grep { /up 4/ } $pod->events), 2, 'both by the last settings');
	is $pod->stop, 0;
};

subtest 'a deaf program is removed, and its name is taken again meanwhile' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $deaf = $pod->script(deaf => "\$SIG{TERM} = 'IGNORE'; note('deaf'); sleep 1 while 1;");
		return "[program:deaf]\ncommand=$deaf\nstartsecs=0\nstopwaitsecs=0.2\n[program:x]\ncommand=sleep 1000\nstartsecs=0\n";
	});
	$pod->wait_events(1);
	my %before = pids($pod);
	spew($pod->path('pod.conf'), "[program:x]\ncommand=sleep 1000\nstartsecs=0\n");
	my $rpc = EG::RPC->new($pod->path('supervisor.sock'));
	my $pid = fork // die;
	if (!$pid) { $pod->ctl('reload'); POSIX::_exit(0) }
	wait_for { my %now = $pod->status; !$now{deaf} } 'the reload to begin';
	my ($code, $out) = reload($pod, "[program:deaf]\ncommand=sleep 1000\nstartsecs=0\n[program:x]\ncommand=sleep 1000\nstartsecs=0\n");
	is "$code $out", "0 added    deaf\n", 'added again';
	waitpid $pid, 0;
	my %now = $pod->status;
	is $now{deaf}{state}, 'RUNNING', 'running';
	ok !-e "/proc/$before{deaf}", 'and the old one was killed first';
	is $now{x}{pid}, $before{x}, 'its sibling goes on';
	is $pod->stop, 0;
};

subtest 'many reloads leak nothing' => sub {
	plan skip_all => 'a sanitizer looks for leaks itself' if instrumented();
	my $conf = sub { "[program:a]\ncommand=sleep 1000\nstartsecs=0\n[program:b]\ncommand=sleep 1000\nstopwaitsecs=$_[0]\n"
			. join '', map { "[program:x$_]\ncommand=true\nautostart=false\n" } 1 .. $_[0] };
	my $pod = Pod->new($conf->(1));
	my $rpc = EG::RPC->new($pod->path('supervisor.sock'));
	my $fds = sub { my @f = glob '/proc/' . $pod->process->pid . '/fd/*'; scalar @f };
	my ($rss, $open);
	for my $i (1 .. 300) {
		spew($pod->path('pod.conf'), $conf->(1 + $i % 20));
		$rpc->call('reload');
		($rss, $open) = (rss_kb($pod->process->pid), $fds->()) if $i == 100;
	}
	is $fds->(), $open, 'descriptors';
	cmp_ok rss_kb($pod->process->pid) - $rss, '<', 300, 'KB more after 200 more';
	is $pod->stop, 0;
};

done_testing;
