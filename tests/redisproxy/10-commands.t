#!/usr/bin/env perl

# What a client sees through the proxy, command by command, is what it sees directly.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

my $redis = Redis::server(args => [ '--requirepass', '' ]);
my $proxy = Redis::proxy($redis);
my $c = $proxy->client;
my $direct = $redis->client;

subtest 'values of every size' => sub {
	for my $n (0, 1, 511, 512, 4096, 65_535, 65_536, 262_143, 262_144, 1_000_000, 5_000_000) {
		my $value = join '', map { chr $_ % 256 } 1 .. $n % 1000;
		$value .= 'x' x ($n - length $value);
		is $c->cmd('SET', 'k', $value), 'OK', "$n bytes in";
		ok $direct->cmd('GET', 'k') eq $value, 'as they were';
		ok $c->cmd('GET', 'k') eq $value, 'and out';
	}
	is $c->cmd('GET', 'none'), undef, 'nil';
	is_deeply $c->cmd('MGET', 'none', 'none'), [ undef, undef ], 'nils';
	is_deeply $c->cmd('KEYS', 'none*'), [], 'an empty array';
	like Redis::is_error($c->cmd('NOSUCH', 'x')), qr/^ERR unknown command/, 'an error';
	like Redis::is_error($c->cmd('GET')), qr/^ERR wrong number/, 'another';
};

subtest 'cut at every byte' => sub {
	my $bytes = Redis::encode('SET', 'cut', "a\r\nb") . Redis::encode('GET', 'cut') . "PING\r\n\r\nGET cut\r\n";
	my $bad = 0;
	for my $at (1 .. length($bytes) - 1) {
		my $x = $proxy->client;
		$x->raw(substr $bytes, 0, $at);
		# The first part has been read when somebody else was served after it.
		$c->cmd('PING');
		$x->raw(substr $bytes, $at);
		my @got = map { $x->get } 1 .. 4;
		$bad++ if "@got" ne "OK a\r\nb PONG a\r\nb";
	}
	is $bad, 0, 'always the same replies';
};

subtest 'inline commands' => sub {
	my $x = $proxy->client;
	$x->raw("\r\n\r\nSET inline \"a b\"\r\n*0\r\n*-1\r\nGET inline\n");
	is $x->get, 'OK', 'SET';
	is $x->get, 'a b', 'GET';
};

subtest 'bytes that are no RESP' => sub {
	for (
		[ "*x\r\n", qr/invalid multibulk length/ ], [ "*3000000000\r\n", qr/invalid multibulk length/ ],
		[ "*1\r\n\$-5\r\n", qr/invalid bulk length/ ], [ "*1\r\n\$2000000000\r\n", qr/invalid bulk length/ ],
		[ "*3\r\n\$3\r\nSET\r\n\$1\r\nx\r\nfooz\r\n", qr/expected '\$', got 'f'/ ],
		[ "SET \"a\r\n", qr/unbalanced quotes/ ], [ 'x' x 70_000, qr/too big inline/ ],
		[ "*1\r\n\$4\rPING", qr/invalid bulk length/ ], [ "*1\r\n\$4\r\nPINGxx", qr/invalid bulk length/ ],
	) {
		my ($bytes, $error) = @$_;
		my $x = $proxy->client;
		$x->put('SET', 'before', 1);
		eval { $x->raw($bytes) };
		is $x->get, 'OK', 'what came before is answered';
		like Redis::is_error($x->get), qr/^ERR Protocol error: .*$error/, "$error";
		ok $x->closed, 'and closed';
	}
	is $c->cmd('PING'), 'PONG', 'nobody else minds';
};

subtest 'more arguments than a million' => sub {
	my $c = $proxy->client;
	$c->raw("*1200002\r\n\$5\r\nRPUSH\r\n\$4\r\nmany\r\n" . "\$1\r\nx\r\n" x 1_200_000);
	is $c->get, 1_200_000;
	is $c->cmd('DEL', 'many'), 1;
};

subtest 'MULTI' => sub {
	is $c->cmd('MULTI'), 'OK';
	is $c->cmd('SET', 'm', 1), 'QUEUED';
	is $c->cmd('GET', 'm'), 'QUEUED', 'reads too';
	is_deeply $c->cmd('EXEC'), [ 'OK', 1 ];
	$c->put(@$_) for [ 'SET', 'p', 1 ], ['MULTI'], [ 'INCR', 'p' ], ['EXEC'], [ 'GET', 'p' ], ['MULTI'], [ 'INCR', 'p' ],
		['DISCARD'], [ 'GET', 'p' ];
	is_deeply [ map { $c->get } 1 .. 9 ], [ 'OK', 'OK', 'QUEUED', [2], 2, 'OK', 'QUEUED', 'OK', 2 ], 'in a pipeline';
	is $c->cmd('MULTI'), 'OK';
	like Redis::is_error($c->cmd('NOSUCH')), qr/unknown command/;
	like Redis::is_error($c->cmd('EXEC')), qr/^EXECABORT/, 'refused';
	is $c->cmd('GET', 'p'), 2, 'and over';
	like Redis::is_error($c->cmd('EXEC')), qr/EXEC without MULTI/;
	my $other = $proxy->client;
	is $c->cmd('WATCH', 'w'), 'OK';
	is $other->cmd('SET', 'w', 1), 'OK', 'somebody else writes';
	is $c->cmd('MULTI'), 'OK';
	is $c->cmd('SET', 'w', 2), 'QUEUED';
	is $c->cmd('EXEC'), undef, 'WATCH saw it';
	is $c->cmd('WATCH', 'w'), 'OK';
	is $c->cmd('UNWATCH'), 'OK';
	is $c->cmd('MULTI'), 'OK';
	is $c->cmd('SELECT', 1), 'QUEUED', 'SELECT within MULTI';
	is $c->cmd('SET', 'in1', 1), 'QUEUED';
	is_deeply $c->cmd('EXEC'), [ 'OK', 'OK' ];
	is $c->cmd('GET', 'in1'), 1, 'stays in that database';
	my $x = $proxy->client;
	$x->cmd('MULTI');
	$x->cmd('SET', 'left', 1);
	undef $x;
	is $_, undef, 'a client that leaves within MULTI leaves nothing' for map { $proxy->client->cmd('GET', 'left') } 1 .. 3;
	$c = $proxy->client;
};

subtest 'databases' => sub {
	my @clients = map { $proxy->client } 0 .. 9;
	is $clients[$_]->cmd('SELECT', $_), 'OK', "SELECT $_" for 0 .. 9;
	is $clients[$_]->cmd('SET', 'db', $_), 'OK' for 0 .. 9;
	is $clients[$_]->cmd('GET', 'db'), $_, 'its own' for 0 .. 9;
	like Redis::is_error($c->cmd('SELECT', 99)), qr/^ERR DB index is out of range/, 'refused by the server';
	like Redis::is_error($c->cmd('SELECT', 'x')), qr/^ERR (?:value|invalid)/, 'no number';
	like Redis::is_error($c->cmd('SELECT')), qr/^ERR wrong number/, 'no argument';
	is $c->cmd('GET', 'db'), 0, 'nothing has changed';
	$c->put('SELECT', $_) , $c->put('GET', 'db') for 0 .. 9;
	is_deeply [ map { ($c->get, $c->get)[1] } 0 .. 9 ], [ 0 .. 9 ], 'in a pipeline';
	like Redis::is_error($c->cmd('RESET', 'x')), qr/^ERR wrong number of arguments for 'reset' command/, 'as Redis says it';
	is $c->cmd('RESET'), 'RESET';
	is $c->cmd('GET', 'db'), 0, 'RESET goes back';
};

subtest 'blocking commands' => sub {
	my $x = $proxy->client;
	$x->put('BLPOP', 'list', 0);
	$x->put('GET', 'm');
	is $c->cmd('PING'), 'PONG', 'others go on' for 1 .. 10;
	is $c->cmd('RPUSH', 'list', 'v'), 1;
	is_deeply $x->get, [ 'list', 'v' ], 'BLPOP';
	is $x->get, 1, 'and what came after it';
	is $x->cmd('BLPOP', 'list', '0.01'), undef, 'in time';
	is_deeply $x->cmd('XREAD', 'COUNT', 1, 'STREAMS', 's', 0), undef, 'XREAD that does not wait';
	$x->put('XREAD', 'BLOCK', 0, 'STREAMS', 's', '$');
	wait_for { $direct->cmd('INFO', 'clients') =~ /blocked_clients:1/ } 'it to block';
	$c->cmd('XADD', 's', '1-1', 'f', 'v');
	is_deeply $x->get, [ [ 's', [ [ '1-1', [ 'f', 'v' ] ] ] ] ], 'XREAD BLOCK';
	$x->put('BLPOP', 'gone', 0);
	wait_for { $direct->cmd('INFO', 'clients') =~ /blocked_clients:1/ } 'it to block';
	undef $x;
	wait_for { $direct->cmd('INFO', 'clients') =~ /blocked_clients:0/ } 'a client that leaves to leave the server too';
	is $c->cmd('RPUSH', 'gone', 'kept'), 1;
	is $c->cmd('LPOP', 'gone'), 'kept', 'and takes nothing with it';
};

subtest 'pub/sub' => sub {
	my $x = $proxy->client;
	$x->put('SUBSCRIBE', 'a', 'b');
	is_deeply [ $x->get, $x->get ], [ [ 'subscribe', 'a', 1 ], [ 'subscribe', 'b', 2 ] ];
	is $c->cmd('PUBLISH', 'a', 'hello'), 1;
	is_deeply $x->get, [ 'message', 'a', 'hello' ];
	$x->put('UNSUBSCRIBE');
	$x->get for 1 .. 2;
	is $x->cmd('PING'), 'PONG', 'an ordinary connection again';
	my $three = $proxy->client;
	my %hello = @{ $three->cmd('HELLO', 3) };
	is $hello{proto}, 3, 'HELLO 3';
	$three->put('SUBSCRIBE', 'a');
	isa_ok $three->get, 'Redis::Push';
	is $three->cmd('GET', 'm'), 1, 'RESP3: commands beside subscriptions';
	$c->cmd('PUBLISH', 'a', 'x');
	is_deeply [ @{ $three->get } ], [ 'message', 'a', 'x' ];
	my $m = $proxy->client;
	is $m->cmd('MONITOR'), 'OK';
	$c->cmd('GET', 'monitored');
	like $m->get, qr/"GET" "monitored"/, 'MONITOR';
	my $t = $proxy->client;
	$t->cmd('HELLO', 3);
	is $t->cmd('CLIENT', 'TRACKING', 'ON'), 'OK';
	is $t->cmd('GET', 'm'), 1;
	$c->cmd('SET', 'm', 2);
	is_deeply [ @{ $t->get } ], [ 'invalidate', ['m'] ], 'CLIENT TRACKING';
	my $q = $proxy->client;
	$q->put(@$_) for [ 'CLIENT', 'REPLY', 'OFF' ], [ 'SET', 'quiet', 1 ], [ 'CLIENT', 'REPLY', 'ON' ], [ 'GET', 'quiet' ];
	is $q->get, 'OK', 'CLIENT REPLY OFF';
	is $q->get, 1, 'CLIENT REPLY ON';
};

subtest 'RESP3' => sub {
	my $x = $proxy->client;
	my %hello = @{ $x->cmd('HELLO', 3, 'SETNAME', 'me') };
	is $hello{server}, 'redis';
	is $x->cmd('CLIENT', 'GETNAME'), 'me';
	$x->cmd('HSET', 'h', 'f', 'v');
	$x->put('HGETALL', 'h');
	is $x->line, '%1', 'a map';
	$x->get for 1 .. 2;
	$x->put('GET', 'none');
	is $x->line, '_', 'its nil';
	$c->put('GET', 'none');
	is $c->line, '$-1', 'others have theirs';
	like Redis::is_error($x->cmd('HELLO', 4)), qr/^NOPROTO/, 'no version 4';
	%hello = @{ $x->cmd('HELLO') };
	is $hello{proto}, 3, 'HELLO without a version';
	$x->cmd('HELLO', 2);
	$x->put('GET', 'none');
	is $x->line, '$-1', 'back to RESP2';
};

subtest 'CLIENT PAUSE' => sub {
	my @paused = map { $proxy->client } 1 .. 3;
	is $c->cmd('CLIENT', 'PAUSE', 100_000, 'WRITE'), 'OK';
	$_->put('SET', 'paused', 1) for @paused;
	wait_for { $direct->cmd('INFO', 'clients') =~ /blocked_clients:3/ } 'the writes to wait';
	is $_->cmd('GET', 'paused'), undef, 'nobody reads behind them' for map { $proxy->client } 1 .. 4;
	$paused[0]->put('GET', 'paused');
	is $_->cmd('CLIENT', 'UNPAUSE'), 'OK', 'UNPAUSE does not wait behind it' for map { $proxy->client } 1 .. 2;
	is $_->get, 'OK', 'and ends it' for @paused;
	is $paused[0]->get, 1, 'in order';
};

subtest 'names' => sub {
	my $x = $proxy->client;
	is $x->cmd('CLIENT', 'GETNAME'), undef;
	is $x->cmd('CLIENT', 'SETNAME', 'alice'), 'OK';
	is $x->cmd('CLIENT', 'GETNAME'), 'alice';
	is $proxy->client->cmd('CLIENT', 'GETNAME'), undef, 'its own';
	like Redis::is_error($x->cmd('CLIENT', 'SETNAME', 'a b')), qr/cannot contain spaces/;
	is $x->cmd('CLIENT', 'SETINFO', 'LIB-NAME', 'test'), 'OK';
	my $id = $x->cmd('CLIENT', 'ID');
	like $x->cmd('CLIENT', 'LIST', 'ID', $id), qr/^id=$id .*name=alice/, 'ID and LIST know it too';
	is $x->cmd('QUIT'), 'OK';
	ok $x->closed, 'QUIT';
};

subtest 'users' => sub {
	is $direct->cmd('ACL', 'SETUSER', 'bob', 'on', '>secret', '~bob:*', '+@all'), 'OK';
	is $direct->cmd('ACL', 'SETUSER', 'eve', 'on', '>other', '~*', '+@all'), 'OK';
	my $x = $proxy->client;
	like Redis::is_error($x->cmd('AUTH', 'bob', 'wrong')), qr/^WRONGPASS/;
	is $x->cmd('ACL', 'WHOAMI'), 'default', 'still who it was';
	is $x->cmd('AUTH', 'bob', 'secret'), 'OK';
	is $x->cmd('ACL', 'WHOAMI'), 'bob';
	like Redis::is_error($x->cmd('GET', 'm')), qr/^NOPERM/, 'with his permissions';
	is $c->cmd('ACL', 'WHOAMI'), 'default', 'others have theirs';
	is $x->cmd('SELECT', 2), 'OK';
	is $x->cmd('ACL', 'WHOAMI'), 'bob', 'kept over SELECT';
	is $x->cmd('MULTI'), 'OK';
	is $x->cmd('ACL', 'WHOAMI'), 'QUEUED';
	is_deeply $x->cmd('EXEC'), ['bob'], 'and on a connection of its own';
	my $y = $proxy->client;
	my %hello = @{ $y->cmd('HELLO', 3, 'AUTH', 'eve', 'other') };
	is $hello{proto}, 3;
	is $y->cmd('ACL', 'WHOAMI'), 'eve', 'HELLO AUTH';
	is $direct->cmd('ACL', 'SETUSER', 'bob', 'resetpass', '>new'), 'OK';
	like Redis::is_error($proxy->client->cmd('AUTH', 'bob', 'secret')), qr/^WRONGPASS/,
		'an old password is no good although a connection with it is there';
	is $proxy->client->cmd('AUTH', 'bob', 'new'), 'OK', 'the new one is';
	is $x->cmd('RESET'), 'RESET';
	is $x->cmd('ACL', 'WHOAMI'), 'default', 'RESET';
};

subtest 'metrics' => sub {
	is $proxy->metric('redis_commands_total{cmd="blpop"}'), 3, 'by command';
	is $proxy->metric('redis_commands_total{cmd="other"}'), 2, 'unknown ones together';
	my $upstream = '127.0.0.1:' . $redis->redis_port;
	cmp_ok $proxy->metric("tcp_connections{upstream=\"$upstream\"}"), '>', 1, 'connections';
	cmp_ok $proxy->metric("tcp_idle_connections{upstream=\"$upstream\"}"), '>', 1, 'idle ones';
	cmp_ok $proxy->metric('redisproxy_command_duration_seconds_count'), '>', 100, 'latency';
	is http('GET', $proxy->url . '/readyz')->{status}, 200, '/readyz';
	# Rate, errors and duration of each pool.
	my $pool = sub { qq(upstream="$upstream",user="$_[0]",db="$_[1]",resp="$_[2]") };
	my $now = sub {
		my $labels = $pool->(@_);
		return map { $_ // 0 } (map { $proxy->metric("redisproxy_upstream_replies_total{$labels,result=\"$_\"}") } qw(ok error lost)),
			$proxy->metric("redisproxy_upstream_duration_seconds_count{$labels}");
	};
	my ($c, $bob) = map { $proxy->client } 1 .. 2;
	$bob->cmd(@$_) for [qw(HELLO 3 AUTH bob new)], [qw(SELECT 7)];
	my @before = ([ $now->('default', 0, 2) ], [ $now->('bob', 7, 3) ]);
	$c->cmd('GET', 'rate') for 1 .. 5;
	$c->cmd('LPOP', 'rate', 'x');
	$bob->cmd('GET', 'bob:rate');
	my @after = ([ $now->('default', 0, 2) ], [ $now->('bob', 7, 3) ]);
	is_deeply [ map { $after[0][$_] - $before[0][$_] } 0 .. 3 ], [ 5, 1, 0, 6 ], 'of the default pool';
	is_deeply [ map { $after[1][$_] - $before[1][$_] } 0 .. 3 ], [ 1, 0, 0, 1 ], "of a user's";
};

done_testing;
