#!/usr/bin/env perl

# 10,000 clients of a cluster: each gets its own replies, and every node sees a handful of connections.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use Cluster;
use EG::Test;
use Many;
use Redis;

Many::skip_without(10_000);
my $cluster = Cluster->new(masters => 3);
my $proxy = $cluster->proxy;
wait_for { $proxy->log =~ /a cluster of 3 masters/ && $proxy->log =~ /\d+ commands/ } 'the map';
my $many = Many->new($proxy, 10_000);
is $many->round(1), 0, 'each its own replies';
for my $i (0 .. 2) {
	my $c = $cluster->client($i);
	my ($n) = $c->cmd('INFO', 'clients') =~ /connected_clients:(\d+)/;
	# One is this one.
	cmp_ok $n - 1, '<=', 8, "node $i: " . ($n - 1) . ' connections';
	cmp_ok $c->cmd('DBSIZE'), '>', 2000, 'and its share of the keys';
}
$many->close;
done_testing;
