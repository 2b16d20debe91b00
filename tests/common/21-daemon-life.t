#!/usr/bin/env perl

# A daemon from its start to its end: sockets, readiness, signals, lameduck and drain.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use IO::Socket::UNIX;
use Socket qw(SOCK_DGRAM SOCK_STREAM);

my $tool = ($ENV{EG_TESTS} // eg_root() . '/build/tests') . '/common/daemon_tool';
sub tool { my (%o) = @_; return process('tool', [$tool], http => 1, %o) }
sub bodies { my ($p) = @_; return map { $_->{body} } $p->log_lines }

subtest 'start, serve, stop' => sub {
	my $dir = test_path('a/b/c');
	my $d = tool(env => { RUN_DIR => $dir, TOOL_NUMBER => 3 });
	my $socket = "$dir/tool.3.sock";
	ok -S $socket, 'the RPC socket has the name of the instance';
	is sprintf('%o', (stat $socket)[2] & 07777), '660', 'for owner and group';
	is sprintf('%o', (stat $dir)[2] & 07777), '750', 'in a directory made for it';
	my $rpc = EG::RPC->new($socket);
	my ($name, $version, $pid, $id, $uptime, $ready) = @{ $rpc->call('ping') };
	is $name, 'tool.3', 'ping: name';
	is $pid, $d->pid, 'pid';
	like $id, qr/^[0-9a-f]{32}$/, 'instance id';
	ok $uptime < 60_000, 'uptime';
	ok $ready, 'ready';
	is_deeply $rpc->call('echo', [ 1, 'x' ]), [ 1, 'x' ], 'own methods';
	is +($rpc->try_call('nothing'))[1][0], 2, 'no others';
	is http('GET', $d->url . '/healthz')->{status}, 200, 'healthz';
	my ($line) = grep { $_->{body} eq 'listening' && $_->{socket} eq 'http' } $d->log_lines;
	is $line->{address}, $d->address, 'the log says where';
	ok $line->{inherited}, 'and that it was inherited';
	is $line->{name}, 'tool.3', 'and who';
	like $line->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'and when';
	$d->stop;
	ok !-e $socket, 'no socket file is left';
	$d->start;
	isnt(EG::RPC->new($socket)->call('ping')->[3], $id, 'another instance id after a restart');
	$d->stop;
};

# A real one, since it has more to take down.
subtest 'told to stop again and again' => sub {
	my %ended;
	for (1 .. 10) {
		my $d = daemon('gatewayd', http => 1, exit => qr/./, env => { PROVIDER => 'mock', STORE => 'none' });
		$d->signal('TERM') while $d->running;
		$ended{ $d->{status} }++;
	}
	is_deeply \%ended, { 0 => 10 }, 'it ends by itself, and well';
};

subtest 'bound sockets' => sub {
	my $d = process('tool', [$tool], args => ['--listen=127.0.0.1:0'], ready => qr/"body":"serving"/);
	my ($line) = grep { $_->{body} eq 'listening' && $_->{socket} eq 'http' } $d->log_lines;
	like $line->{address}, qr/^127\.0\.0\.1:[1-9]\d*$/, 'a port was chosen';
	is http('GET', "http://$line->{address}/readyz")->{status}, 200, 'and is served';
	$d->stop;
	for my $address ('[::1]:0', ':0') {
		my $e = process('tool', [$tool], args => ["--listen=$address"], exit => qr/^(?:0|69)$/, ready => qr/"body":"serving"|not an address|cannot be/,
			allow => qr/not an address|cannot be listened/);
		my ($where) = map { $_->{address} } grep { $_->{body} eq 'listening' && $_->{socket} eq 'http' } $e->log_lines;
		like $where // $e->log, qr/^\[::1?\]:\d+$|^0\.0\.0\.0:\d+$|not an address|cannot be/, "$address: $where";
		$e->stop;
	}
	my $path = test_path('http.sock');
	my $u = process('tool', [$tool], args => ["--listen=$path"], ready => qr/"body":"serving"/);
	is http('GET', "unix:$path:/healthz")->{status}, 200, 'HTTP over a Unix socket';
	$u->stop;
	ok !-e $path, 'which goes with the daemon';
};

subtest 'predecessors' => sub {
	my $path = test_path('tool.sock');
	my $stale = listen_unix($path);
	close $stale;
	ok -S $path, 'a stale socket';
	my $d = tool();
	is $d->rpc->call('ping')->[2], $d->pid, 'is replaced';
	my $second = process('second', [$tool], args => ['--listen=127.0.0.1:0'], exit => qr/^69$/, allow => qr/is in use by another/);
	$second->wait_exit;
	like $second->log, qr/"body":"\Q$path\E is in use by another process"/, 'one that is listened on is not';
	is $d->rpc->call('ping')->[2], $d->pid, 'and goes on';
	# Somebody else's file under our name is not ours to remove.
	unlink $path;
	my $other = listen_unix($path);
	$d->stop;
	ok -S $path, 'a socket made by somebody else stays';
	close $other;
	unlink $path;
	spew($path, 'precious');
	my $third = process('third', [$tool], args => ['--listen=127.0.0.1:0'], exit => qr/^69$/, allow => qr/is not a socket/);
	$third->wait_exit;
	is slurp($path), 'precious', 'nor is a file that is no socket';
	unlink $path;

	my $k = tool();
	$k->kill9;
	ok -S $path, 'a killed daemon leaves its socket';
	$k->start;
	is $k->rpc->call('ping')->[2], $k->pid, 'the next one takes its place';
	$k->stop;
	is join(' ', grep { /^\.socket/ } do { opendir my $h, test_dir() or die; readdir $h }), '', 'no temporary name is left';
};

subtest 'inherited' => sub {
	my $d = tool(rpc => 'handed.sock', sockets => [ [ 'what', listen_tcp() ], [ 'http', listen_tcp() ] ]);
	is $d->rpc->call('ping')->[2], $d->pid, 'the RPC socket';
	is scalar(grep { /inherited socket "(?:what|http)" has no use here: closed/ } bodies($d)), 2, 'others are closed with a warning';
	$d->stop;
	ok -S test_path('handed.sock'), 'and is not removed';
	my $path = test_path('plain');
	open my $file, '>', $path or die;
	my $e = tool(sockets => [ [ 'rpc', $file ] ]);
	ok grep({ /inherited descriptor 4 \("rpc"\) is not a listening socket: left alone/ } bodies($e)), 'what is no socket is not taken';
	ok -S test_path('tool.sock'), 'a new one is bound';
	$e->stop;
	my $f = process('tool', [$tool], env => { LISTEN_FDS => 1, LISTEN_FDNAMES => 'http', LISTEN_PID => 1 },
		args => ['--listen=127.0.0.1:0'], ready => qr/"body":"serving"/);
	my ($line) = grep { $_->{body} eq 'listening' && $_->{socket} eq 'http' } $f->log_lines;
	ok !$line->{inherited}, 'nor what was meant for another process';
	$f->stop;
};

subtest 'sd_notify' => sub {
	my $path = test_path('notify');
	my $socket = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $path) or die;
	my $told = sub {
		vec(my $v = '', fileno $socket, 1) = 1;
		return 'nothing' if !select $v, undef, undef, $EG::Test::TIMEOUT;
		recv $socket, my $m, 100, 0;
		return $m;
	};
	my $d = tool(env => { NOTIFY_SOCKET => $path });
	is $told->(), 'READY=1', 'ready';
	$d->signal('TERM');
	is $told->(), 'STOPPING=1', 'stopping';
	is $d->wait_exit, 0, 'gone';
	my $e = tool(env => { NOTIFY_SOCKET => test_path('nobody') });
	$e->stop;
};

subtest 'readiness' => sub {
	my $d = tool();
	http('POST', $d->url . '/unready');
	is http('GET', $d->url . '/readyz')->{status}, 503, 'as the daemon says';
	is http('GET', $d->url . '/healthz')->{status}, 200, 'but healthy';
	ok !$d->rpc->call('ping')->[5], 'ping says the same';
	http('POST', $d->url . '/ready');
	is http('GET', $d->url . '/readyz')->{status}, 200, 'and again';
	my $no = http('POST', $d->url . '/readyz');
	is $no->{status}, 405, 'only GET and HEAD';
	is $no->{headers}{allow}, 'GET, HEAD', 'as it says';
	is http('HEAD', $d->url . '/healthz')->{body}, '', 'HEAD';
	$d->stop;
};

subtest 'lameduck and drain' => sub {
	my $d = tool(args => [ '--lameduck=10m', '--termination-grace-period=20m', '--hold' ]);
	my $c = EG::HTTP->new($d->url);
	is $c->request('GET', '/state')->{body}, "serving\n", 'serving';
	$d->signal('TERM');
	$d->wait_log(qr/"body":"quack"/);
	is $c->request('GET', '/state')->{body}, "lameduck\n", 'lameduck: still serves';
	is http('GET', $d->url . '/readyz')->{status}, 503, 'also new connections, but is not ready';
	$d->signal('INT'); # another signal
	is $c->request('GET', '/state')->{body}, "lameduck\n", 'which another signal does not end';
	$d->signal('TERM');
	$d->wait_log(qr/"body":"draining"/);
	is $c->request('GET', '/state')->{body}, "draining\n", 'the same one again does';
	$d->signal('TERM');
	is $c->request('GET', '/state')->{body}, "draining\n", 'a third one changes nothing';
	$c->request('POST', '/drained');
	is $d->wait_exit, 0, 'gone when drained';
};

subtest 'the end is certain' => sub {
	my $d = tool(args => [ '--lameduck=1ms', '--termination-grace-period=300ms', '--hold' ]);
	my $rpc = $d->rpc;
	$rpc->call('ping');
	$d->signal('TERM');
	is $d->wait_exit, 0, 'gone';
	my ($line) = grep { $_->{body} =~ /grace period is over/ } $d->log_lines;
	is $line->{open}, 'a held drain', 'the log names what was open';
	is $line->{rpc_connections}, 1, 'and who was connected';
	is_deeply [ grep { /^(?:serving|lameduck|draining|stopped)$/ } bodies($d) ], [qw(serving lameduck draining stopped)], 'every state once';
	my $quit = tool(exit => qr/^3$/);
	eval { http('POST', $quit->url . '/quit') };
	is $quit->wait_exit >> 8, 3, 'daemon_quit() sets the exit code';
};

subtest 'reload' => sub {
	my $secret = spew(test_path('secret'), "four\n");
	my $log = test_path('log');
	my $d = tool(env => { TOOL_SECRET_FILE => $secret }, args => ['--mode=x']);
	is http('GET', $d->url . '/secret')->{body}, "4\n", 'a secret';
	spew($secret, "sixsix\n");
	$d->signal('HUP');
	$d->wait_log(qr/reloaded: the secret has 6 bytes/);
	is http('GET', $d->url . '/secret')->{body}, "6\n", 'is read again';
	unlink $secret;
	$d->signal('HUP');
	$d->wait_log(qr/"severitytext":"ERROR".*settings were not read again: environment variable TOOL_SECRET_FILE: cannot read/);
	is http('GET', $d->url . '/secret')->{body}, "6\n", 'or kept';
	unlike $d->log, qr/sixsix|four/, 'and never logged';
	$d->stop;
};

subtest 'RPC for operators' => sub {
	my $d = tool();
	my $rpc = $d->rpc;
	is_deeply $rpc->call('log_level', ['debug']), ['info'], 'log_level';
	is_deeply $rpc->call('log_level', ['WARNING']), ['debug'], 'again';
	is_deeply $rpc->call('log_level', ['']), ['warn'], 'only asked';
	my (undef, $error) = $rpc->try_call('log_level', ['loud']);
	is_deeply $error, [ 1, 'level: "loud" is not one of debug, info, warn, error, fatal' ], 'refused';
	http('GET', $d->url . '/state') for 1 .. 3;
	my ($families) = @{ $rpc->call('metrics') };
	my %by_name = map { $_->[0] => $_ } @$families;
	my $f = $by_name{tool_requests_total};
	is_deeply [ @$f[ 1 .. 3 ] ], [ 'counter', 'Requests.', ['path'] ], 'a family';
	is_deeply $f->[5], [ [ ['/state'], 3, [] ] ], 'its sample';
	my $lag = $by_name{loop_lag_seconds};
	is $lag->[1], 'histogram', 'a histogram';
	is scalar @{ $lag->[4] } + 1, scalar @{ $lag->[5][0][2] }, 'a count for each bound and +Inf';
	is_deeply [ map { $_->[0] } @$families ], [ sort map { $_->[0] } @$families ], 'by name';
	$d->stop;
};

subtest 'metrics page' => sub {
	my $d = tool();
	http('GET', $d->url . '/state');
	my $r = http('GET', $d->url . '/metrics');
	is $r->{status}, 200, 'answered';
	is $r->{headers}{'content-type'}, 'text/plain; version=0.0.4; charset=utf-8', 'type';
	my %value = map { /^([^#].*) (\S+)$/ ? ($1 => $2) : () } split /\n/, $r->{body};
	is $value{'tool_requests_total{path="/state"}'}, 1, 'own';
	cmp_ok $value{process_resident_memory_bytes}, '>', 1 << 20, 'memory';
	cmp_ok abs($value{process_resident_memory_bytes} / 1024 - rss_kb($d->pid)), '<', 4096, 'as the kernel has it';
	my ($anonymous) = slurp('/proc/' . $d->pid . '/status') =~ /^RssAnon:\s+(\d+)/m;
	cmp_ok abs($value{process_anonymous_memory_bytes} / 1024 - $anonymous), '<', 4096, 'and what is its own';
	cmp_ok $value{process_anonymous_memory_bytes}, '<', $value{process_resident_memory_bytes}, 'is a part of it';
	cmp_ok $value{process_cpu_seconds_total}, '>', 0, 'CPU';
	cmp_ok abs($value{process_start_time_seconds} - time), '<', 60, 'start';
	opendir my $fds, '/proc/' . $d->pid . '/fd' or die;
	my $n = grep { /\d/ } readdir $fds;
	cmp_ok abs($value{process_open_fds} - $n), '<=', 1, 'descriptors';
	cmp_ok $value{process_max_fds}, '>=', $n, 'and their limit';
	ok grep({ /^build_info\{version="[^"]+"\}$/ } keys %value), 'version';
	cmp_ok $value{'log_lines_total{level="info"}'}, '>=', 3, 'log lines';
	is $value{log_dropped_lines_total}, 0, 'none lost';
	my $promtool = (grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH})[0];
	if ($promtool) {
		my $page = spew(test_path('page'), $r->{body});
		is `$promtool check metrics < $page 2>&1`, '', 'promtool has nothing to say';
	}
};

done_testing;
