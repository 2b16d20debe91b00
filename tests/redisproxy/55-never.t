#!/usr/bin/env perl

# What must never happen (REQUIREMENTS: each was seen in a proxy that people use).

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;
use IO::Socket::INET;

my $redis = Redis::server();
my $proxy = Redis::proxy($redis, args => ['--shared-connections=1']);
my $c = $proxy->client;

subtest 'no state is left for the next client' => sub {
	my @leave = (
		[ 'MULTI', ['MULTI'], [ 'SET', 'left', 1 ] ], [ 'WATCH', [ 'WATCH', 'left' ] ], [ 'SELECT', [ 'SELECT', 3 ] ],
		[ 'SUBSCRIBE', [ 'SUBSCRIBE', 'news' ] ], [ 'HELLO 3', [ 'HELLO', 3 ] ], [ 'MONITOR', ['MONITOR'] ],
		[ 'unread replies', map { [ 'ECHO', "unread$_" ] } 1 .. 50 ], [ 'REPLY OFF', [ 'CLIENT', 'REPLY', 'OFF' ] ],
		[ 'half a command' ], [ 'NO-EVICT', [ 'CLIENT', 'NO-EVICT', 'ON' ] ], [ 'name', [ 'CLIENT', 'SETNAME', 'left' ] ],
		[ 'BLPOP', [ 'BLPOP', 'nothing', 0 ] ], [ 'tracking', [ 'HELLO', 3 ], [ 'CLIENT', 'TRACKING', 'ON' ] ],
	);
	$c->cmd('SELECT', 3), $c->cmd('SET', 'in3', 1), $c->cmd('SELECT', 0);
	for (@leave) {
		my ($what, @commands) = @$_;
		my $gone = $proxy->client;
		$gone->put(@$_) for @commands;
		$gone->raw("*2\r\n\$3\r\nGET\r\n\$10\r\nabc") if !@commands;
		# What it sent has been read when somebody else was served after it.
		$c->cmd('PING');
		undef $gone;
		my @next = map { $proxy->client } 1 .. 3;
		my $bad = 0;
		for my $next (@next) {
			$next->put(@$_) for [ 'ECHO', 'mine' ], [ 'GET', 'in3' ], ['MULTI'], [ 'SET', 'a', 1 ], ['EXEC'], [ 'CLIENT', 'GETNAME' ], [ 'GET', 'left' ];
			my @got = map { $next->get } 1 .. 7;
			$bad++ if $got[0] ne 'mine' || defined $got[1] || $got[2] ne 'OK' || $got[3] ne 'QUEUED' || ref $got[4] ne 'ARRAY' || defined $got[5] || defined $got[6];
		}
		is $bad, 0, $what;
	}
};

subtest 'nobody waits while another connection is being made' => sub {
	# Its queue is full: connecting to it takes for ever.
	my $deaf = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 0) or die "listen: $!";
	my @fill;
	for (1 .. 16) {
		my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $deaf->sockport, Blocking => 0) or last;
		push @fill, $s;
	}
	my $hanging = bless { redis_port => $deaf->sockport }, 'Redis::Process';
	my $split = Redis::proxy($redis, reader => $hanging, args => [ '--read-your-writes=0', '--upstream-wait=20s', '--connect-timeout=60s', '--ping-timeout=60s' ],
		allow => qr/./);
	my $reads = $split->client;
	$reads->put('GET', 'a');
	my @others = map { $split->client } 1 .. 5;
	is $_->cmd('SET', 'a', 2), 'OK', 'writes are served' for @others;
	undef $reads;
	undef @others;
};

subtest 'a command goes to one server, wherever it is cut' => sub {
	my $reader = Redis::server(args => [ '--replicaof', '127.0.0.1', $redis->redis_port ]);
	wait_for { $reader->client->cmd('INFO', 'replication') =~ /master_link_status:up/ } 'replication';
	my $split = Redis::proxy($redis, reader => $reader, args => ['--read-your-writes=0']);
	my $bytes = Redis::encode('SET', 'cut', 'x' x 20) . Redis::encode('STRLEN', 'cut') . Redis::encode('SET', 'cut', 'y' x 20);
	my $bad = 0;
	for my $at (1 .. length($bytes) - 1) {
		my $x = $split->client;
		$x->raw(substr $bytes, 0, $at);
		$c->cmd('PING');
		$x->raw(substr $bytes, $at);
		my @got = map { $x->get } 1 .. 3;
		$bad++ if $got[0] ne 'OK' || $got[1] !~ /^(?:0|20)$/ || $got[2] ne 'OK';
	}
	is $bad, 0, 'always whole';
};

subtest 'bytes of every kind' => sub {
	srand 7;
	my @kinds = (
		sub { "\r\n" x (1 + rand 50) }, sub { join '', map { chr rand 256 } 1 .. rand 300 }, sub { "*1\r\n" x 200 }, sub { '*' . '9' x 30 . "\r\n" },
		sub { "*1048576\r\n" . "\$1\r\na\r\n" x 20 }, sub { "\$5\r\nhello\r\n" }, sub { "*2\r\n\$4\r\nECHO\r\n\$" . int(rand 1e9) . "\r\n" }, sub { "\0" x 500 },
		sub { "*-1\r\n" x 20 }, sub { "GET / HTTP/1.1\r\nHost: x\r\n\r\n" }, sub { ">1\r\n+x\r\n" }, sub { "'\"\\x" . "\n" },
	);
	for my $n (1 .. 300) {
		my $x = $proxy->client;
		eval { $x->raw($kinds[ $n % @kinds ]->()) };
		is $c->cmd('ECHO', $n), $n, 'others are served' if $n % 50 == 0;
	}
	ok $proxy->running, 'it lives';
};

subtest 'what makes the server close a connection' => sub {
	# Words of a browser (cross-protocol scripting).
	for my $word ('POST', 'Host:') {
		my $x = $proxy->client;
		$x->put('ECHO', 'before');
		$x->put($word, '/');
		is $x->get, 'before', 'what came before is answered';
		ok $x->closed, "$word: that client is closed";
	}
	is $c->cmd('ECHO', 'here'), 'here', 'nobody else is';
	my $guarded = Redis::server();
	my $front = Redis::proxy($guarded, allow => qr/./);
	is $guarded->client->cmd('CONFIG', 'SET', 'requirepass', 'open-sesame'), 'OK';
	my @clients = map { $front->client } 1 .. 10;
	for my $n (0 .. $#clients) {
		# More than a server takes from who has not logged in; those who log in beside it do not suffer.
		my $large = $front->client;
		$large->put('AUTH', 'x' x 20_000);
		$large->put('HELLO', 3, ('x') x 30);
		$clients[$n]->put('AUTH', 'open-sesame');
		like Redis::is_error($large->get), qr/^(?:ERR|WRONGPASS)/;
		like Redis::is_error($large->get), qr/^ERR/;
		is $clients[$n]->get, 'OK';
	}
};

subtest 'unknown names are one label' => sub {
	$c->put("NOSUCH$_", 'x') for 1 .. 500;
	$c->get for 1 .. 500;
	my $page = http('GET', $proxy->url . '/metrics')->{body};
	unlike $page, qr/nosuch/i, 'none of them';
	cmp_ok $proxy->metric('redis_commands_total{cmd="other"}'), '>=', 500, 'all counted';
};

done_testing;
