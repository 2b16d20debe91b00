#!/usr/bin/env perl

# A cluster of three masters with a replica each behind the one address: every command finds its server, and
# replies come in the order of the requests, whatever goes where.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Cluster;
use Redis;

my $cluster = Cluster->new(masters => 3, replicas => 1);
my $proxy = $cluster->proxy;
wait_for { $proxy->log =~ /a cluster of 3 masters/ } 'the map';
wait_for { $proxy->log =~ /\d+ commands/ } 'the table of commands';

sub errors { return grep { Redis::is_error($_) } @_ }

subtest 'keys of all slots' => sub {
	my $c = $proxy->client;
	is_deeply [ errors(map { $c->cmd('SET', "k$_", "v$_") } 1 .. 300) ], [], 'SET';
	is scalar(grep { $c->cmd('GET', "k$_") ne "v$_" } 1 .. 300), 0, 'GET';
	$c->put('GET', "k$_") for 1 .. 300;
	is scalar(grep { $c->get ne "v$_" } 1 .. 300), 0, 'a pipeline over all nodes, in order';
	my @sizes = map { $cluster->client($_)->cmd('DBSIZE') } 0 .. 2;
	is scalar(grep { $_ < 50 } @sizes), 0, "keys on every node: @sizes";
	is $c->cmd('SET', '{tag}a', 1), 'OK';
	is_deeply $c->cmd('MGET', '{tag}a', '{tag}b'), [ 1, undef ], 'a hash tag';
};

subtest 'a client that has sent its last byte' => sub {
	my $c = $proxy->client;
	my @pop = ([qw(RPUSH halves x)], [qw(BLPOP halves 0)]);
	$c->put(@$_) for (map { [ 'SET', "half$_", $_ ] } 1 .. 10), [qw(MULTI)], [qw(INCR half1)], [qw(EXEC)], @pop, [qw(GET half1)];
	shutdown $c->socket, 1;
	is_deeply [ map { $c->get } 1 .. 16 ], [ ('OK') x 11, 'QUEUED', [2], 1, [qw(halves x)], 2 ], 'all is answered';
	ok $c->closed, 'then the end';
	$c = $proxy->client;
	$c->put(@$_) for [qw(SET half1 2)], [qw(BLPOP nothing 0)], [qw(GET half1)];
	shutdown $c->socket, 1;
	is $c->get, 'OK';
	ok $c->closed, 'and nobody waits for others';
};

subtest 'replies in order, large beside small' => sub {
	my $c = $proxy->client;
	$c->cmd('SET', "big$_", chr(96 + $_) x 300_000) for 1 .. 6;
	for my $round (1 .. 5) {
		for (1 .. 6) {
			$c->put('GET', "big$_");
			$c->put('ECHO', "$round-$_");
			$c->put('INCR', "count$_");
		}
		my $bad = 0;
		for (1 .. 6) {
			$bad++ if $c->get ne chr(96 + $_) x 300_000;
			$bad++ if $c->get ne "$round-$_";
			$bad++ if $c->get != $round;
		}
		is $bad, 0, "round $round";
	}
};

subtest 'commands over several slots' => sub {
	my $c = $proxy->client;
	is $c->cmd('MSET', map { ("m$_", "x$_") } 1 .. 50), 'OK', 'MSET';
	is_deeply $c->cmd('MGET', 'none', map { "m$_" } 1 .. 50), [ undef, map { "x$_" } 1 .. 50 ], 'MGET';
	is $c->cmd('EXISTS', 'none', map { "m$_" } 1 .. 50), 50, 'EXISTS';
	is $c->cmd('TOUCH', map { "m$_" } 1 .. 10), 10, 'TOUCH';
	is $c->cmd('DEL', map { "m$_" } 1 .. 20), 20, 'DEL';
	is $c->cmd('UNLINK', map { "m$_" } 1 .. 50), 30, 'UNLINK';
	like Redis::is_error($c->cmd('MSET', 'a', 1, 'b')), qr/^ERR wrong number of arguments for 'mset' command/, 'as the server says';
	$c->cmd('SADD', "set$_", $_) for 1 .. 3;
	is Redis::is_error($c->cmd('SUNION', 'set1', 'set2', 'set3')), "CROSSSLOT Keys in request don't hash to the same slot", 'SUNION';
	is Redis::is_error($c->cmd('RENAME', 'set1', 'set2')), "CROSSSLOT Keys in request don't hash to the same slot", 'RENAME';
	$c->cmd('LPUSH', 'list', 1);
	is_deeply $c->cmd('MGET', 'list', 'k1'), [ undef, 'v1' ], 'MGET of what is no string';
};

subtest 'where keys stand' => sub {
	my $c = $proxy->client;
	my @wrong;
	for my $n (1 .. 20) {
		my $k = "spec$n";
		my @all = (
			$c->cmd('EVAL', 'return redis.call("SET", KEYS[1], ARGV[1])', 1, $k, 'e'),
			$c->cmd('OBJECT', 'ENCODING', $k),
			$c->cmd('MEMORY', 'USAGE', $k),
			$c->cmd('ZADD', "z$k", 1, 'a'),
			$c->cmd('ZUNION', 1, "z$k"),
			$c->cmd('ZUNIONSTORE', "{z$k}s", 1, "z$k"),
			$c->cmd('ZMPOP', 1, "z$k", 'MIN'),
			$c->cmd('XADD', "x$k", '*', 'a', 'b'),
			$c->cmd('XREAD', 'COUNT', 1, 'STREAMS', "x$k", 0),
			$c->cmd('XGROUP', 'CREATE', "x$k", 'g', 0),
			$c->cmd('XREADGROUP', 'GROUP', 'g', 'me', 'STREAMS', "x$k", '>'),
			$c->cmd('XINFO', 'STREAM', "x$k"),
			$c->cmd('BITOP', 'NOT', "b$k", "b$k"),
			$c->cmd('SORT', "l$k", 'LIMIT', 0, 1),
			$c->cmd('RPUSH', "l$k", 'x'),
			$c->cmd('BLPOP', "l$k", 0),
			$c->cmd('RPUSH', "l$k", 'x'),
			$c->cmd('BLMPOP', 0, 1, "l$k", 'LEFT'),
			$c->cmd('GEOADD', "g$k", 1, 1, 'here'),
			$c->cmd('GEORADIUS', "g$k", 1, 1, 1, 'km'),
		);
		push @wrong, map { "$k: " . Redis::is_error($_) } errors(@all);
	}
	is_deeply \@wrong, [], 'every command finds its node';
	is $c->cmd('EVAL', 'return 5', 0), 5, 'a script without keys';
	my $sha = $c->cmd('SCRIPT', 'LOAD', 'return KEYS[1]');
	is_deeply [ map { $c->cmd('EVALSHA', $sha, 1, "k$_") } 1 .. 20 ], [ map { "k$_" } 1 .. 20 ], 'SCRIPT LOAD is for all nodes';
};

subtest 'without keys' => sub {
	my $c = $proxy->client;
	is $c->cmd('PING'), 'PONG';
	is $c->cmd('ECHO', 'x'), 'x';
	# npm's redis does so; the connection stays one that knows all nodes.
	like Redis::is_error($c->cmd('CLIENT', 'MAINT_NOTIFICATIONS', 'ON')), qr/^ERR unknown subcommand/;
	is scalar(grep { $c->cmd('GET', "k$_") ne "v$_" } 1 .. 20), 0;
	my $total = 0;
	$total += $cluster->client($_)->cmd('DBSIZE') for 0 .. 2;
	is $c->cmd('DBSIZE'), $total, 'DBSIZE';
	is scalar @{ $c->cmd('KEYS', 'k*') }, 300, 'KEYS';
	my ($cursor, %seen, $calls) = (0);
	do {
		my $r = $c->cmd('SCAN', $cursor, 'MATCH', 'k*', 'COUNT', 100);
		($cursor, my $keys) = @$r;
		@seen{@$keys} = ();
		$calls++;
	} while $cursor ne '0' && $calls < 1000;
	is scalar keys %seen, 300, "SCAN: all keys in $calls calls";
	like Redis::is_error($c->cmd('SCAN', 'x')), qr/invalid cursor/;
	is Redis::is_error($c->cmd('SELECT', 1)), 'ERR SELECT is not allowed in cluster mode', 'SELECT 1';
	is $c->cmd('SELECT', 0), 'OK';
	is $c->cmd($_), 'OK', $_ for qw(READONLY READWRITE ASKING);
	like Redis::is_error($c->cmd('NOSUCH', 'x')), qr/^ERR unknown command/;
};

subtest 'transactions' => sub {
	my $c = $proxy->client;
	for my $n (1 .. 30) {
		$c->put('MULTI');
		$c->put('SET', "{t$n}a", $n);
		$c->put('INCR', "{t$n}a");
		$c->put('GET', "{t$n}b");
		$c->put('EXEC');
	}
	my @bad = grep { my @r = map { $c->get } 1 .. 5; "@r[0..3]" ne 'OK QUEUED QUEUED QUEUED' || ref $r[4] ne 'ARRAY' || $r[4][1] != $_ + 1 } 1 .. 30;
	is_deeply \@bad, [], '30 in a pipeline, on all nodes';
	$c->cmd('MULTI');
	is_deeply $c->cmd('EXEC'), [], 'an empty one';
	$c->cmd('MULTI');
	is $c->cmd('DISCARD'), 'OK';
	like Redis::is_error($c->cmd('EXEC')), qr/^ERR EXEC without MULTI/;
	$c->cmd('MULTI');
	is $c->cmd('SET', 'k1', 'v1'), 'QUEUED';
	is Redis::is_error($c->cmd('SET', 'k2', 'v2')), "CROSSSLOT Keys in request don't hash to the same slot", 'keys of several slots';
	like Redis::is_error($c->cmd('EXEC')), qr/^EXECABORT/;
	is $c->cmd('GET', 'k2'), 'v2', 'and on';
	is $c->cmd('WATCH', '{w}a'), 'OK';
	is $c->cmd('GET', 'k3'), 'v3', 'another node while watching';
	is $c->cmd('GET', '{w}a'), undef;
	$proxy->client->cmd('SET', '{w}a', 1);
	$c->cmd('MULTI');
	is $c->cmd('SET', '{w}a', 2), 'QUEUED';
	is $c->cmd('EXEC'), undef, 'WATCH saw the change';
	is $c->cmd('WATCH', '{w}a'), 'OK';
	$c->cmd('MULTI');
	is $c->cmd('SET', '{w}a', 3), 'QUEUED';
	is_deeply $c->cmd('EXEC'), ['OK'], 'WATCH saw none';
	is $c->cmd('WATCH', '{w}a'), 'OK';
	$c->cmd('MULTI');
	is_deeply $c->cmd('EXEC'), [], 'WATCH and an empty transaction';
	$c->cmd('MULTI');
	like Redis::is_error($c->cmd('SET', 'x')), qr/^ERR wrong number/;
	like Redis::is_error($c->cmd('EXEC')), qr/^EXECABORT/;
	$c->cmd('MULTI');
	$c->cmd('SET', 'k1', 'v1');
	undef $c;
	is $proxy->client->cmd('GET', 'k1'), 'v1', 'the next client has no part in it';
};

subtest 'pub/sub' => sub {
	my ($s, $p) = map { $proxy->client } 1 .. 2;
	$s->put('SUBSCRIBE', 'news');
	is_deeply $s->get, [ 'subscribe', 'news', 1 ];
	# From a client at another node.
	my $n = 0;
	$p->cmd('PUBLISH', 'news', 'hello') for 1 .. 3;
	is_deeply $s->get, [ 'message', 'news', 'hello' ] for 1 .. 3;
	my $shard = $proxy->client;
	$shard->put('SSUBSCRIBE', 'shard7');
	is_deeply $shard->get, [ 'ssubscribe', 'shard7', 1 ];
	is $p->cmd('SPUBLISH', 'shard7', 'x'), 1;
	is_deeply $shard->get, [ 'smessage', 'shard7', 'x' ], 'sharded';
};

subtest 'large commands' => sub {
	my $c = $proxy->client;
	for my $n (1 .. 6) {
		my $v = chr(64 + $n) x 1_000_000;
		$c->put('SET', "large$n", $v);
		$c->put('STRLEN', "large$n");
		is $c->get, 'OK';
		is $c->get, 1_000_000;
		$c->put('GET', "large$n");
		ok $c->get eq $v;
	}
	$c->put('MULTI');
	$c->put('SET', 'large1', 'y' x 500_000);
	$c->put('STRLEN', 'large1');
	$c->put('EXEC');
	is_deeply [ map { $c->get } 1 .. 4 ], [ 'OK', 'QUEUED', 'QUEUED', [ 'OK', 500_000 ] ], 'within MULTI';
};

subtest 'few connections to each node' => sub {
	my @clients = map { $proxy->client } 1 .. 500;
	for my $i (0 .. $#clients) {
		$clients[$i]->put('SET', "many$i-$_", "$i.$_"), $clients[$i]->put('GET', "many$i-$_") for 1 .. 5;
	}
	my $bad = 0;
	for my $i (0 .. $#clients) {
		for my $n (1 .. 5) {
			$bad++ if $clients[$i]->get ne 'OK';
			$bad++ if $clients[$i]->get ne "$i.$n";
		}
	}
	is $bad, 0, '500 clients, each its own replies';
	for my $i (0 .. 2) {
		my ($n) = $cluster->client($i)->cmd('INFO', 'clients') =~ /connected_clients:(\d+)/;
		cmp_ok $n, '<=', 25, "node $i: $n connections";
	}
};

subtest 'clients that have subscribed' => sub {
	for my $channel (map { "channel$_" } 1 .. 6) {
		my $c = $proxy->client;
		is_deeply $c->cmd('SSUBSCRIBE', $channel), [ 'ssubscribe', $channel, 1 ], "$channel, at the node of its slot";
		is $proxy->client->cmd('SPUBLISH', $channel, 'hello'), 1, 'somebody listens there';
		is_deeply $c->get, [ 'smessage', $channel, 'hello' ], 'and hears it';
	}
	# They stay on one node; who knows no cluster is told so, not where to go.
	for my $version (2, 3) {
		my $c = $proxy->client;
		$c->cmd('HELLO', $version);
		$c->cmd('SUBSCRIBE', 'c1');
		$c->cmd('UNSUBSCRIBE');
		$c->put('SET', "key$_", 1) for 1 .. 20;
		my %said;
		$said{ (Redis::is_error($_) // $_) =~ s/^(ERR redisproxy: a connection that has subscribed).*/$1/r }++ for map { $c->get } 1 .. 20;
		is_deeply [ sort keys %said ], [ 'ERR redisproxy: a connection that has subscribed', 'OK' ], "RESP$version: an error, and no MOVED";
		is $c->cmd('RESET'), 'RESET', 'and goes on';
	}
};

done_testing;
