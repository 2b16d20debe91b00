#!/usr/bin/env perl

# Peers that die, hang, do not read, or come in thousands.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use EG::Build qw(instrumented);
use Redis;

my $redis = Redis::server();
my $proxy = Redis::proxy($redis, args => [ '--upstream-wait=300ms', '--response-timeout=3s', '--client-output-limit=1MB', '--client-memory=16MB' ],
	env => { TERMINATION_GRACE_PERIOD => '30s' });
my $port = $redis->redis_port;

subtest 'a client that does not read' => sub {
	my $c = $proxy->client;
	$c->cmd('SET', 'big', 'x' x 1_000_000);
	my $before = rss_kb($proxy->pid);
	my $slow = $proxy->client;
	# More than any buffer holds; it never reads.
	$slow->raw(Redis::encode('GET', 'big') x 60);
	wait_for { $proxy->metric('redisproxy_slow_clients_total') } 'it to be closed';
	cmp_ok rss_kb($proxy->pid) - $before, '<', instrumented() ? 1_000_000 : 60_000, 'bounded memory';
	is $c->cmd('PING'), 'PONG', 'others are served';
	my $reading = $proxy->client;
	$reading->put('GET', 'big') for 1 .. 50;
	is scalar(grep { length $reading->get == 1_000_000 } 1 .. 50), 50, 'who reads gets all of it';
};

subtest 'a client that sends slowly stops nobody' => sub {
	my $slow = $proxy->client;
	my $command = Redis::encode('SET', 'slow', 'y' x 2_000_000);
	$slow->raw(substr $command, 0, 1_500_000);
	is $proxy->client->cmd('PING'), 'PONG' for 1 .. 5;
	$slow->raw(substr $command, 1_500_000);
	is $slow->get, 'OK';
	is $slow->cmd('STRLEN', 'slow'), 2_000_000;
	my $gone = $proxy->client;
	$gone->raw(substr $command, 0, 1_500_000);
	undef $gone;
	is $proxy->client->cmd('STRLEN', 'slow'), 2_000_000, 'half a command is none';
};

subtest 'a server that does not read' => sub {
	# However long it takes to come so far, the server is slow, not dead.
	my $proxy = Redis::proxy($redis, args => [ '--upstream-wait=300ms', '--response-timeout=60s', '--ping-timeout=60s' ]);
	is $proxy->client->cmd('PING'), 'PONG';
	my $before = rss_kb($proxy->pid);
	kill STOP => $redis->pid;
	# Far more than the proxy wants to hold; the rest stays in the kernel.
	my @clients = Redis::flood($proxy, 100);
	# Everybody has been read, as much as will be, when this one is.
	is $proxy->client->cmd('CLIENT', 'SETNAME', 'last'), 'OK';
	my $grown = rss_kb($proxy->pid) - $before;
	cmp_ok $grown, '<', instrumented() ? 100_000 : 9_000, "bounded memory: $grown kB more for 16 MB on their way";
	kill CONT => $redis->pid;
	my %said;
	$said{ Redis::is_error($_) // $_ }++ for map { $_->get } @clients;
	is_deeply \%said, { OK => 100 }, 'and all are served then';
};

subtest 'a server that does not read for longer than it may take to answer' => sub {
	my $proxy = Redis::proxy($redis, args => [ '--response-timeout=200ms', '--ping-timeout=60s' ]);
	is $proxy->client->cmd('PING'), 'PONG';
	kill STOP => $redis->pid;
	my @clients = Redis::flood($proxy, 100);
	# What was under way has failed when the connection is closed; what was not waits on.
	wait_for { $proxy->metric('redisproxy_failed_commands_total{reason="lost"}') } 'the time to be over';
	kill CONT => $redis->pid;
	my %said;
	$said{ Redis::is_error($_) // $_ }++ for map { $_->get } @clients;
	my ($ok, $lost) = @said{ 'OK', 'ERR redisproxy: the upstream does not answer' };
	is $ok + $lost, 100, "an answer for everybody: $lost errors, $ok served";
	cmp_ok $lost, '>', 0, 'errors for what was under way';
};

subtest 'the server hangs' => sub {
	my $c = $proxy->client;
	kill STOP => $redis->pid;
	$c->put('GET', 'a');
	my $reply = $c->get;
	like Redis::is_error($reply), qr/^ERR redisproxy: the upstream does not answer/, 'an error in bounded time';
	my $pool = "upstream=\"127.0.0.1:$port\",user=\"default\",db=\"0\",resp=\"2\"";
	is $proxy->metric("redisproxy_upstream_replies_total{$pool,result=\"lost\"}"), 1, 'counted';
	kill CONT => $redis->pid;
	wait_for { !Redis::is_error($c->cmd('GET', 'a')) } 'it to work again';
	pass 'and back';
};

subtest 'a storm of clients' => sub {
	my ($soft) = `sh -c 'ulimit -n'` =~ /(\d+)/;
	my $n = 2000;
	my @clients;
	for (1 .. $n) {
		my $c = eval { $proxy->client } // last;
		$c->put('SET', "storm$_", $_);
		$c->put('GET', "storm$_");
		push @clients, [ $_, $c ];
		last if $soft ne 'unlimited' && @clients > $soft - 200;
	}
	my $bad = grep { my ($id, $c) = @$_; $c->get ne 'OK' || $c->get ne $id } @clients;
	is $bad, 0, scalar(@clients) . ' clients, each its own replies';
	my $connected = $proxy->metric("tcp_connections{upstream=\"127.0.0.1:$port\"}");
	cmp_ok $connected, '<=', 8, "$connected connections to the server";
	@clients = ();
};

subtest 'the server dies' => sub {
	my @clients = map { $proxy->client } 1 .. 5;
	my $in_multi = $proxy->client;
	$in_multi->cmd('MULTI');
	$redis->kill9;
	like Redis::is_error($_->cmd('SET', 'a', 1)), qr/^ERR redisproxy: /, 'an error' for @clients;
	ok $in_multi->closed, 'a transaction is lost with its client';
	$redis = Redis::server(port => $port);
	wait_for { !Redis::is_error($clients[0]->cmd('SET', 'a', 1)) } 'it to work again';
	is $_->cmd('SET', 'a', 1), 'OK', 'and back' for @clients;
};

subtest 'SIGTERM' => sub {
	my $c = $proxy->client;
	$proxy->signal('TERM');
	wait_for { $proxy->log =~ /draining/ } 'the drain';
	is $c->cmd('PING'), 'PONG', 'who is there is served on';
	undef $c;
	wait_for { !$proxy->running } 'the end';
	pass 'until the last one leaves';
};

done_testing;
