#!/usr/bin/env perl

# 10,000 clients on a handful of connections, npm's among them: each gets its own replies.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);

my ($hard) = `sh -c 'ulimit -Hn'` =~ /(\d+)/;
my $wanted = 10_000;
plan(skip_all => "no more than $hard descriptors here") if defined $hard && $hard < $wanted + 500;

my $redis = Redis::server();
my $proxy = Redis::proxy($redis);
my $to = pack_sockaddr_in($proxy->redis_port, inet_aton('127.0.0.1'));
my $before = rss_kb($proxy->pid);
my @clients;
for (1 .. $wanted) {
	socket my $s, PF_INET, SOCK_STREAM, 0 or die "client $_: $!";
	connect $s, $to or die "client $_: $!";
	push @clients, $s;
}
wait_for { return $proxy->metric('redisproxy_clients') >= $wanted } 'all of them to be accepted';
my $idle = rss_kb($proxy->pid) - $before;
cmp_ok $idle, '<', 60_000, "10,000 idle clients: $idle kB";

sub connected { return $redis->client->cmd('INFO', 'clients') =~ /connected_clients:(\d+)/ ? $1 - 1 : die }

sub round
{
	my ($round) = @_;
	for my $i (0 .. $#clients) {
		syswrite $clients[$i], Redis::encode('SET', "many:$i", "$round-$i") . Redis::encode('GET', "many:$i");
	}
	my $bad = 0;
	for my $i (0 .. $#clients) {
		my $want = "+OK\r\n\$" . length("$round-$i") . "\r\n$round-$i\r\n";
		my $got = '';
		while (length $got < length $want) {
			sysread $clients[$i], $got, 4096, length $got or last;
		}
		$bad++ if $got ne $want;
	}
	return $bad;
}

is round(1), 0, 'each its own replies';
# Two shared ones, two that check logins, one for health.
cmp_ok connected(), '<=', 8, connected() . ' connections to the server';

my $node = "$FindBin::Bin/../lib/node";
SKIP: {
	skip 'Node 20 or newer with ioredis and redis is not installed (mk/deps test)', 3
		if qx{node -p 'parseInt(process.versions.node) >= 20' 2>&1} !~ /true/ || !-d "$node/node_modules/ioredis";
	for (split /\n/, qx{node $node/redis.mjs @{[ $proxy->redis_port ]} 20 2>&1}) {
		my $r = json_decode($_);
		is_deeply $r->{failures}, [], "20 x $r->{client} among them";
	}
}
is round(2), 0, 'and still each its own';
# Databases 0 to 2 in RESP2 and 3: what MULTI and the blocking commands had is kept for the next.
my %pools;
$pools{ join ' ', /\bdb=(\d+).*\bresp=(\d)/ }++ for split /\n/, $redis->client->cmd('CLIENT', 'LIST', 'TYPE', 'normal');
cmp_ok scalar keys %pools, '<=', 6, 'six pools';
close $_ for @clients;
@clients = ();
wait_for { return $proxy->metric('redisproxy_clients') == 0 } 'all of them to be gone';
done_testing;
