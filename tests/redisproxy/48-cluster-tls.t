#!/usr/bin/env perl

# A cluster whose nodes speak TLS to each other and to clients: CLUSTER SLOTS, MOVED and ASK name TLS ports.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use Cluster;
use EG::Test;
use Redis;
use Tls;

Tls::authority('ca');
Tls::authority('stranger');
Tls::certificate('server', 'ca', 'IP:127.0.0.1');
my $cluster = Cluster->new(masters => 3, replicas => 1, tls => 'server');

sub by { my ($ca, @more) = @_; return $cluster->proxy(args => [ '--tls', '--tls-ca-file=' . test_path("$ca.pem"), @more ], allow => qr/certificate/) }
my $proxy = by('ca', '--reader-routing', '--read-your-writes=0');
wait_for { $proxy->log =~ /a cluster of 3 masters/ && $proxy->log =~ /\d+ commands/ } 'the map';

subtest 'all nodes' => sub {
	my $c = $proxy->client;
	is scalar(grep { my $r = $c->cmd('SET', "k$_", $_); ref $r || $r ne 'OK' } 1 .. 200), 0, 'SET';
	is_deeply $c->cmd('MGET', map { "k$_" } 1 .. 200), [ 1 .. 200 ], 'MGET';
	is scalar(grep { !$cluster->client($_)->cmd('DBSIZE') } 0 .. 2), 0, 'keys on every node';
	$c->put('SET', "big$_", $_ x 100_000) for 1 .. 9;
	is $c->get, 'OK' for 1 .. 9;
	wait_for { $c->cmd('GET', 'big9') eq '9' x 100_000 } 'a replica';
	$c->put('GET', "big$_") for 1 .. 9;
	is scalar(grep { length $c->get != 100_000 } 1 .. 9), 0, 'pipelines of 100 KB values over all nodes';
	$c->put(@$_) for ['MULTI'], [ 'INCR', 'n' ], ['EXEC'];
	is_deeply [ map { $c->get } 1 .. 3 ], [ 'OK', 'QUEUED', [1] ], 'a connection of its own';
	my ($calls) = $cluster->client(3)->cmd('INFO', 'commandstats') =~ /cmdstat_get:calls=(\d+)/;
	cmp_ok $calls, '>', 0, 'reads at a replica';
};

subtest 'a slot moves' => sub {
	my $c = $proxy->client;
	my $slot = $cluster->client(0)->cmd('CLUSTER', 'KEYSLOT', '{moves}');
	my $from = $cluster->master_of("#$slot");
	my $to = ($from + 1) % 3;
	is $c->cmd('SET', '{moves}1', 'here'), 'OK';
	$cluster->client($to)->cmd('CLUSTER', 'SETSLOT', $slot, 'IMPORTING', $cluster->{ids}[$from]);
	$cluster->client($from)->cmd('CLUSTER', 'SETSLOT', $slot, 'MIGRATING', $cluster->{ids}[$to]);
	is $c->cmd('SET', '{moves}2', 'there'), 'OK', 'ASK';
	is $cluster->client($from)->cmd('EXISTS', '{moves}1'), 1;
	like Redis::is_error($cluster->client($from)->cmd('GET', '{moves}2')), qr/^ASK/, 'it is at the other node';
	cmp_ok $proxy->metric('redisproxy_redirections_total{kind="ask"}'), '>', 0, 'counted';
};

subtest 'another authority' => sub {
	my $wrong = by('stranger', '--upstream-wait=300ms');
	like Redis::is_error($wrong->client->cmd('GET', 'a')), qr/^ERR redisproxy: /, 'nothing is said to them';
	wait_for { $wrong->log =~ /certificate/ } 'the log to say why';
	pass 'named';
};

done_testing;
