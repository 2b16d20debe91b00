#!/usr/bin/env perl

# 10,000 clients on a handful of connections, npm's among them: each gets its own replies.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Many;
use Redis;

Many::skip_without(10_000);
my $redis = Redis::server();
my $proxy = Redis::proxy($redis);
my $before = rss_kb($proxy->pid);
my $many = Many->new($proxy, 10_000);
my $idle = rss_kb($proxy->pid) - $before;
cmp_ok $idle, '<', 60_000, "10,000 idle clients: $idle kB";

sub connected { return $redis->client->cmd('INFO', 'clients') =~ /connected_clients:(\d+)/ ? $1 - 1 : die }

is $many->round(1), 0, 'each its own replies';
# Two shared ones, two that check logins, one for health.
cmp_ok connected(), '<=', 8, connected() . ' connections to the server';

my $node = "$FindBin::Bin/../lib/node";
SKIP: {
	skip 'Node 20 or newer with ioredis and redis is not installed (mk/deps test)', 3
		if qx{node -p 'parseInt(process.versions.node) >= 20' 2>&1} !~ /true/ || !-d "$node/node_modules/ioredis";
	for (split /\n/, qx{node $node/redis.mjs @{[ $proxy->redis_port ]} 6 2>&1}) {
		my $r = json_decode($_);
		is_deeply $r->{failures}, [], "6 x $r->{client} among them";
	}
}
is $many->round(2), 0, 'and still each its own';
# Databases 0 to 2 in RESP2 and 3: what MULTI and the blocking commands had is kept for the next.
my %pools;
$pools{ join ' ', /\bdb=(\d+).*\bresp=(\d)/ }++ for split /\n/, $redis->client->cmd('CLIENT', 'LIST', 'TYPE', 'normal');
cmp_ok scalar keys %pools, '<=', 6, 'six pools';
$many->close;
done_testing;
