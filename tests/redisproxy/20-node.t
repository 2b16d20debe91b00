#!/usr/bin/env perl

# npm's clients: ioredis, and redis with RESP2 and RESP3, in front of a server, of what sentinels name, and of a cluster.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Cluster;
use Redis;
use Sentinel;

my $node = "$FindBin::Bin/../lib/node";
plan(skip_all => 'Node 20 or newer is not installed') if qx{node -p 'parseInt(process.versions.node) >= 20' 2>&1} !~ /true/;
plan(skip_all => 'ioredis and redis are not installed (mk/deps test)')
	if grep { !-d "$node/node_modules/$_" } qw(ioredis redis);

my $redis = Redis::server();
my $proxy = Redis::proxy($redis);

# Some cost node much time of its own (redis.mjs says why).
sub try_clients
{
	my ($port, $n, $databases) = @_;
	my @said = split /\n/, qx{node $node/redis.mjs $port $n $databases 2>&1};
	is scalar @said, 3, 'three kinds of clients' or diag "@said";
	for (@said) {
		my $r = json_decode($_);
		is_deeply $r->{failures}, [], "$n x $r->{client}";
	}
	return;
}
subtest 'a server' => sub { try_clients($proxy->redis_port, 12, 3) };

my $sentinel = Sentinel->start($redis, name => 'main');
my $by_sentinel = Redis::proxy($redis, args => [ '--mode=sentinel', '--sentinel-master=main',
	'--sentinel-addresses=127.0.0.1:' . $sentinel->port ]);
wait_for { $by_sentinel->log =~ /the master is/ && $by_sentinel->log =~ /\d+ commands/ } 'the sentinel\'s word';
subtest 'what a sentinel names' => sub { $redis->client->cmd('FLUSHALL'); try_clients($by_sentinel->redis_port, 6, 3) };

my $cluster = Cluster->new(masters => 3);
my $of_cluster = $cluster->proxy;
wait_for { $of_cluster->log =~ /a cluster of 3 masters/ && $of_cluster->log =~ /\d+ commands/ } 'the map';
subtest 'a cluster' => sub {
	try_clients($of_cluster->redis_port, 6, 1);
	my $bare = grep { !$cluster->client($_)->cmd('DBSIZE') } 0 .. 2;
	is $bare, 0, 'keys are on every node';
};
done_testing;
