#!/usr/bin/env perl

# Clients that take their replies slowly, or not at all, and commands that come by halves: nobody else
# waits for them, and what is held for all of them together is bounded.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use EG::Build qw(instrumented);
use Redis;
use Time::HiRes qw(time);

my $redis = Redis::server();
my $MB = 1_000_000;
$redis->client->cmd('SET', "$_", 'x' x ($_ * $MB)) for 8, 30;

# Ordinary clients, one command after the other: the longest that one of them took.
sub longest
{
	my ($proxy, $seconds) = @_;
	my @clients = map { $proxy->client } 1 .. 4;
	my ($most, $end) = (0, time + $seconds);
	while ((my $begin = time) < $end) {
		for my $c (@clients) {
			my $at = time;
			die "no reply\n" if defined $c->cmd(qw(GET nothing));
			my $took = time - $at;
			$most = $took if $took > $most;
		}
	}
	return $most;
}

# So many that ask for a large value and never read.
sub deaf
{
	my ($proxy, $n, $key) = @_;
	my @deaf = map { $proxy->client } 1 .. $n;
	$_->put('GET', $key) for @deaf;
	return @deaf;
}

subtest 'a client that reads slowly gets all of it' => sub {
	my $proxy = Redis::proxy($redis, args => ['--client-output-limit=1MB']);
	my $c = $proxy->client;
	$c->put('GET', 30);
	my ($got, $begin) = (0, time);
	while ($got < 30 * $MB) {
		my $n = sysread $c->socket, my $bytes, 100_000 or last;
		$got += $n;
		my $ahead = $begin + $got / (8 * $MB) - time;
		# Its speed, which is what is tested.
		select undef, undef, undef, $ahead if $ahead > 0;
	}
	cmp_ok $got, '>=', 30 * $MB, sprintf '%d bytes in %.1f s', $got, time - $begin;
	is $proxy->metric('redisproxy_slow_clients_total'), 0, 'nobody was closed';
};

subtest 'clients that do not read stop nobody' => sub {
	my $proxy = Redis::proxy($redis);
	my @deaf = deaf($proxy, 2, 30);
	cmp_ok longest($proxy, 1), '<', 0.9, 'others go on';
	wait_for { $proxy->metric('redisproxy_slow_clients_total') == 2 } 'them to be closed';
	like $proxy->log, qr/a client does not take its replies \(\d+ bytes wait\): closed/, 'the log says so';
	wait_for { $proxy->metric('redisproxy_client_memory_bytes') < 1000 } 'what was held to be gone';
	pass 'nothing is left';
};

subtest 'the budget is scarce: a connection waits, others take its place' => sub {
	my $proxy = Redis::proxy($redis, args => [ '--client-memory=16MB', '--client-output-limit=1MB', '--shared-connections=1' ]);
	my @deaf = deaf($proxy, 1, 30);
	wait_for { $proxy->metric('redisproxy_client_memory_bytes') > 8 * $MB } 'much to be held';
	my $before = rss_kb($proxy->pid);
	cmp_ok longest($proxy, 0.5), '<', 0.4, 'new commands go on';
	cmp_ok $proxy->metric('redisproxy_client_memory_bytes'), '<', 9.5 * $MB, 'not more is held';
	wait_for { $proxy->metric('redisproxy_slow_clients_total') == 1 } 'it to be closed';
	my $c = $proxy->client;
	is length $c->cmd('GET', 30), 30 * $MB, 'a reader gets all of it';
	is $c->cmd('PING'), 'PONG', 'and goes on';
};

subtest 'too much for all together' => sub {
	my $proxy = Redis::proxy($redis, args => ['--client-memory=32MB']);
	is $proxy->client->cmd('PING'), 'PONG';
	my $before = rss_kb($proxy->pid);
	my @deaf = deaf($proxy, 20, 8);
	wait_for { $proxy->metric('redisproxy_slow_clients_total') >= 5 } 'some to be closed';
	is $proxy->client->cmd('PING'), 'PONG', 'others are served';
	my $grown = (status_kb($proxy->pid, 'VmHWM') - $before) / 1000;
	# A sanitizer keeps freed memory.
	cmp_ok $grown, '<', instrumented() ? 1000 : 100, "at most $grown MB more";
	like $proxy->log, qr/more than --client-memory: those that hold most are closed/, 'the log says so';
};

subtest 'commands by halves' => sub {
	my $proxy = Redis::proxy($redis, args => ['--client-memory=32MB']);
	is $proxy->client->cmd('PING'), 'PONG';
	my $before = rss_kb($proxy->pid);
	my $half = substr Redis::encode('ECHO', 'z' x 250_000), 0, 200_000;
	my @clients = map { $proxy->client } 1 .. 400;
	$_->raw($half) for @clients;
	wait_for { $proxy->metric('redisproxy_slow_clients_total') > 200 } 'many to be closed';
	my $grown = (status_kb($proxy->pid, 'VmHWM') - $before) / 1000;
	cmp_ok $grown, '<', instrumented() ? 1000 : 80, "at most $grown MB more for 80 MB of them";
	is $proxy->client->cmd('PING'), 'PONG', 'others are served';
	@clients = ();
	wait_for { instrumented() || rss_kb($proxy->pid) - $before < 8_000 } 'the memory to be given back';
	wait_for { $proxy->metric('redisproxy_client_memory_bytes') == 0 } 'it to notice';
	is $proxy->metric('redisproxy_client_memory_bytes'), 0, 'nothing is left';
};

sub status_kb
{
	my ($pid, $name) = @_;
	open my $in, '<', "/proc/$pid/status" or die "status: $!";
	return (map { /^\Q$name\E:\s+(\d+)/ } <$in>)[0];
}

done_testing;
