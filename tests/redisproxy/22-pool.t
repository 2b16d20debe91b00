#!/usr/bin/env perl

# Unix sockets on both sides, and the connections that are kept for MULTI and the like: how many, how long, which first.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use IO::Socket::UNIX;
use Redis;

my $redis = Redis::server();
my $address = '127.0.0.1:' . $redis->redis_port;

# In MULTI each has a connection of its own; afterwards these are kept. Returns their clients.
sub use_own
{
	my ($proxy, $n) = @_;
	my @clients = map { $proxy->client } 1 .. $n;
	is $_->cmd('MULTI'), 'OK' for @clients;
	is $_->cmd('DISCARD'), 'OK' for @clients;
	return @clients;
}

# The server's id of the connection that a transaction of this client is on.
sub id_within
{
	my ($c) = @_;
	$c->cmd('MULTI');
	my @ids = $redis->client->cmd(qw(CLIENT LIST)) =~ /^id=(\d+) .* flags=x /mg;
	$c->cmd('DISCARD');
	return "@ids";
}

subtest 'Unix sockets' => sub {
	my $path = test_path('redisproxy-clients.sock');
	my $near = daemon('redisproxy', http => 1, rpc => 'near.sock', env => { LAMEDUCK => 0, TERMINATION_GRACE_PERIOD => '500ms' },
		args => [ "--local-address=$path", "--remote-address=$address" ]);
	wait_for { -S $path } 'the socket';
	my $far = Redis::proxy($path);
	my $c = $far->client;
	is $c->cmd(qw(SET unix 1)), 'OK', 'a server at a path';
	is $redis->client->cmd(qw(GET unix)), 1, 'is that server';
	my $value = 'v' x 200_000;
	$c->put('SET', 'large', $value), $c->put('GET', 'large') for 1 .. 5;
	is $c->get, $_ % 2 ? 'OK' : $value, 'large values' for 1 .. 10;
	my $s = IO::Socket::UNIX->new(Peer => $path) // die "$path: $!";
	syswrite $s, Redis::encode(qw(BLPOP nothing 0)) . Redis::encode(qw(SET a 1)) x 5000;
	wait_for { ($redis->client->cmd('INFO', 'clients') =~ /blocked_clients:(\d+)/)[0] == 1 } 'the pop';
	close $s;
	wait_for { ($redis->client->cmd('INFO', 'clients') =~ /blocked_clients:(\d+)/)[0] == 0 } 'the server to be told';
	pass 'a client that vanishes from a path is noticed';
};

subtest 'idle ones are kept up to a number' => sub {
	my $proxy = Redis::proxy($redis, env => { MAX_IDLE_CONNECTIONS => 2 });
	my @clients = use_own($proxy, 5);
	# Two shared at most, one for health, two that were kept.
	wait_for { $proxy->metric("tcp_connections{upstream=\"$address\"}") <= 5 } 'the others to be closed';
	pass 'closed';
};

subtest 'and up to an age' => sub {
	my $proxy = Redis::proxy($redis, env => { MAX_IDLE_TIME => '100ms' });
	my @clients = use_own($proxy, 3);
	wait_for { $proxy->metric("tcp_idle_connections{upstream=\"$address\"}") == 0 } 'all to be closed';
	is $clients[0]->cmd('PING'), 'PONG', 'and made again';

	$proxy = Redis::proxy($redis, env => { MAX_IDLE_TIME => '100ms', MIN_IDLE_CONNECTIONS => 2 });
	@clients = use_own($proxy, 5);
	wait_for { $proxy->metric("tcp_idle_connections{upstream=\"$address\"}") == 2 } 'the least that is kept';
	pass 'some are kept';
};

subtest 'none lives longer than is said' => sub {
	my $proxy = Redis::proxy($redis, env => { MAX_LIFETIME => '200ms' });
	my $c = $proxy->client;
	my $first = id_within($c);
	like $first, qr/^\d+$/, 'an id';
	wait_for { id_within($c) != $first } 'another connection';
	my $errors = grep { Redis::is_error($c->cmd(qw(INCR n))) } 1 .. 2000;
	is $errors, 0, 'which nobody sees';
};

subtest 'which one is next' => sub {
	for my $strategy (qw(fifo lifo)) {
		my $proxy = Redis::proxy($redis, env => { REDISPROXY_POOL_STRATEGY => $strategy });
		my @clients = use_own($proxy, 3);
		my %seen = map { id_within($clients[0]) => 1 } 1 .. 6;
		is keys %seen, $strategy eq 'fifo' ? 3 : 1, "$strategy: all in turn, or always the last";
	}
};

subtest 'no more connections than are allowed' => sub {
	my $proxy = Redis::proxy($redis, env => { MAX_CONNECTIONS => 4, REDISPROXY_UPSTREAM_WAIT => '100ms' });
	my @clients = map { $proxy->client } 1 .. 8;
	my @replies = map { $_->cmd('MULTI') } @clients;
	my @refused = grep { (Redis::is_error($_) // '') =~ /no connection to the upstream/ } @replies;
	cmp_ok scalar @refused, '>=', 4, 'the others are told';
	cmp_ok $proxy->metric("tcp_connections{upstream=\"$address\"}"), '<=', 4, 'connections';
	$_->socket->close for @clients;
	wait_for { $proxy->client->cmd('MULTI') eq 'OK' } 'room';
	pass 'and it goes on';
};

done_testing;
