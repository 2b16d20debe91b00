#!/usr/bin/env perl

# Three sentinels, a master and two replicas: who the writer is, a failover under load, sentinels that die or hang.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;
use Sentinel;

my @redis = (Redis::server());
push @redis, map {
	Redis::server(args => [ '--replicaof', '127.0.0.1', $redis[0]->redis_port ])
} 1 .. 2;
for my $replica (@redis[ 1, 2 ]) {
	wait_for { $replica->client->cmd('INFO', 'replication') =~ /master_link_status:up/ } 'replication';
}
my %at = map { $redis[$_]->redis_port => $_ } 0 .. $#redis;

my @sentinels = map {
	Sentinel->start($redis[0], name => 'main', quorum => 2, password => 'guarded', lines => [ 'sentinel down-after-milliseconds main 1000',
		'sentinel failover-timeout main 4000', 'sentinel parallel-syncs main 2' ])
} 1 .. 3;
for my $s (@sentinels) {
	wait_for {
		my $r = $s->ask('SENTINEL', 'master', 'main');
		my %m = ref $r eq 'ARRAY' ? @$r : ();
		($m{'num-other-sentinels'} // 0) == 2 && $m{'num-slaves'} == 2
	} 'the sentinels to know each other';
}

my $proxy = Redis::proxy($redis[0], env => { REDISPROXY_SENTINEL_PASSWORD => 'guarded' }, args => [ '--mode=sentinel',
	'--sentinel-master=main', '--sentinel-addresses=' . join(',', map { "127.0.0.1:@{[ $_->port ]}" } @sentinels),
	'--reader-routing', '--read-your-writes=0', '--ping-interval=200ms', '--ping-timeout=500ms' ]);

# Sentinels have it hang up on all clients when its role changes, on this one too.
sub role { my ($i) = @_; return eval { $redis[$i]->client->cmd('ROLE')->[0] } // 'none just now' }
sub calls
{
	my ($i, $name) = @_;
	return $redis[$i]->client->cmd('INFO', 'commandstats') =~ /cmdstat_$name:calls=(\d+)/ ? $1 : 0;
}

subtest 'who the writer is' => sub {
	my $c = $proxy->client;
	is $c->cmd('SET', 'a', 1), 'OK';
	is calls(0, 'set'), 1, 'the one that the sentinels name';
	like $proxy->log, qr/main: the master is 127\.0\.0\.1:@{[ $redis[0]->redis_port ]}/;
	wait_for { $proxy->log =~ /reads go to/ } 'a replica';
	wait_for { ($redis[1]->client->cmd('GET', 'a') // '') eq 1 && ($redis[2]->client->cmd('GET', 'a') // '') eq 1 } 'replication';
	my $before = calls(1, 'get') + calls(2, 'get');
	is $c->cmd('GET', 'a'), 1 for 1 .. 5;
	is calls(1, 'get') + calls(2, 'get') - $before, 5, 'reads go to a replica';
};

# Clients count up; what was acknowledged before the writer died may be lost (replication is asynchronous), but no
# reply may be somebody else's.
sub load_until
{
	my ($done, $what) = @_;
	my (@clients) = map { { name => "c$_", c => $proxy->client, n => 0 } } 1 .. 6;
	my ($ok, $errors, $wrong) = (0, 0, 0);
	my %said;
	wait_for {
		for my $m (@clients) {
			$m->{c}->put('SET', "$m->{name}", "$m->{name}#" . ++$m->{n});
			$m->{c}->put('ECHO', "$m->{name}#$m->{n}");
		}
		for my $m (@clients) {
			my ($set, $echo) = ($m->{c}->get, $m->{c}->get);
			if (my $e = Redis::is_error($set)) { $errors++; $said{$e}++ }
			elsif ($set eq 'OK') { $ok++ }
			else { $wrong++ }
			$wrong++ if !Redis::is_error($echo) && $echo ne "$m->{name}#$m->{n}";
		}
		$done->()
	} $what;
	is $wrong, 0, "no reply was somebody else's ($ok ok, $errors errors)";
	is_deeply [ grep { !/^ERR redisproxy: |^READONLY / } keys %said ], [], 'errors that say why';
	my $back = wait_for { !grep { Redis::is_error($_->{c}->cmd('SET', $_->{name}, 'end')) } @clients } 'writes';
	ok $back, 'all write again, on the same connections';
	return;
}

subtest 'a failover that was asked for' => sub {
	my $transaction = $proxy->client;
	$transaction->cmd('MULTI');
	my $subscriber = $proxy->client;
	$subscriber->cmd('SUBSCRIBE', 'x');
	is $sentinels[0]->ask('SENTINEL', 'FAILOVER', 'main'), 'OK';
	load_until(sub { role(0) eq 'slave' && $proxy->log =~ /the master is (?!.*:@{[ $redis[0]->redis_port ]}\b)/ }, 'the failover');
	ok $transaction->closed, 'a transaction on the old one is lost with its client';
	ok $subscriber->closed, 'so is a subscription';
};

sub present { my ($i) = grep { role($_) eq 'master' } 0 .. $#redis; return $i }

subtest 'the writer is killed' => sub {
	wait_for { defined present() } 'a master';
	my $victim = present();
	for my $s (@sentinels) {
		wait_for {
			my %m = @{ $s->ask('SENTINEL', 'master', 'main') };
			$m{port} == $redis[$victim]->redis_port && $m{flags} eq 'master'
		} 'the sentinels to agree';
	}
	my $before = () = $proxy->log =~ /the master is/g;
	$redis[$victim]->kill9;
	load_until(sub { my $n = () = $proxy->log =~ /the master is/g; $n > $before }, 'the failover');
	isnt present(), $victim, 'another one writes';
};

subtest 'sentinels die and hang' => sub {
	$sentinels[0]->kill9;
	kill STOP => $sentinels[1]->pid;
	is $proxy->client->cmd('SET', 'b', 1), 'OK', 'nobody needs them to write';
	my $again = Redis::proxy($redis[1], env => { REDISPROXY_SENTINEL_PASSWORD => 'guarded' }, args => [ '--mode=sentinel',
		'--sentinel-master=main', '--sentinel-addresses=' . join(',', map { "127.0.0.1:@{[ $_->port ]}" } @sentinels), '--upstream-wait=10s' ]);
	is $again->client->cmd('SET', 'c', 1), 'OK', 'a new proxy finds the one that answers';
	kill CONT => $sentinels[1]->pid;
	$again->stop;
};

done_testing;
