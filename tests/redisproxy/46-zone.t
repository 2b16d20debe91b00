#!/usr/bin/env perl

# Two replicas in two zones: reads go to the one in the proxy's own, whichever that is.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;
use Sentinel;

my $master = Redis::server();
my %replica = map {
	($_ => Redis::server(args => [ '--bind', '127.0.0.1', $_, '--replica-announce-ip', $_, '--replicaof', '127.0.0.1', $master->redis_port ]))
} qw(127.0.0.2 127.0.0.3);
wait_for { $_->client->cmd('INFO', 'replication') =~ /master_link_status:up/ } 'replication' for values %replica;

my $watcher = Sentinel->start($master, name => 'main');
my $sentinel = $watcher->port;
wait_for {
	2 == grep { my %row = @$_; $row{'master-link-status'} eq 'ok' } @{ $watcher->ask('SENTINEL', 'replicas', 'main') // [] }
} 'the sentinel to know both';

sub calls
{
	my ($zone) = @_;
	return $replica{$zone}->client->cmd('INFO', 'commandstats') =~ /cmdstat_get:calls=(\d+)/ ? $1 : 0;
}

sub reads_of
{
	my ($own) = @_;
	return Redis::proxy($master, args => [ '--mode=sentinel', '--sentinel-master=main', "--sentinel-addresses=127.0.0.1:$sentinel",
		'--reader-routing', '--read-your-writes=0', '--ping-interval=100ms', '--ping-timeout=500ms', '--topology-refresh=100ms',
		'--zone-cidrs=127.0.0.2/32,127.0.0.3/32', "--own-ip=$own" ]);
}

for my $own (sort keys %replica) {
	my $proxy = reads_of($own);
	my $c = $proxy->client;
	wait_for { $proxy->log =~ /reads go to \Q$own\E:/ } "the replica at $own";
	my $before = calls($own);
	# It may have to be connected to first.
	wait_for { $c->cmd('GET', 'k'); calls($own) > $before } 'a read there';
	$before = calls($own);
	$c->cmd('GET', 'k') for 1 .. 20;
	is calls($own) - $before, 20, "reads go to $own";
	$proxy->stop;
}
done_testing;
