#!/usr/bin/env perl

# A cluster whose nodes hang and die under load, with replicas that serve reads and a server that wants passwords.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Cluster;
use Redis;

my $cluster = Cluster->new(masters => 3, replicas => 1, node_timeout_ms => 2000);
$cluster->client($_)->cmd('ACL', 'SETUSER', 'alice', 'on', '>secret', '~alice:*', '+@all') for 0 .. 5;
my $proxy = $cluster->proxy(args => [ '--reader-routing', '--read-your-writes=1h', '--ping-interval=200ms', '--ping-timeout=1s',
	'--upstream-wait=1s' ]);
wait_for { $proxy->log =~ /a cluster of 3 masters/ && $proxy->log =~ /\d+ commands/ } 'the map';

sub calls
{
	my ($i, $name) = @_;
	return $cluster->client($i)->cmd('INFO', 'commandstats') =~ /cmdstat_$name:calls=(\d+)/ ? $1 : 0;
}

subtest 'reads go to replicas' => sub {
	my $w = $proxy->client;
	$w->cmd('SET', "k$_", $_) for 1 .. 60;
	is scalar(grep { $w->cmd('GET', "k$_") ne $_ } 1 .. 60), 0, 'who wrote reads its writes';
	my @masters = map { calls($_, 'get') } 0 .. 2;
	for my $i (3 .. 5) {
		wait_for { $cluster->client($i)->cmd('DBSIZE') == $cluster->client($i - 3)->cmd('DBSIZE') } 'replication';
	}
	my $r = $proxy->client;
	$r->put('GET', "k$_") for 1 .. 60;
	is scalar(grep { $r->get ne $_ } 1 .. 60), 0, 'who did not, too';
	is_deeply [ map { calls($_, 'get') } 0 .. 2 ], \@masters, 'no master was asked';
	my $early = 0;
	for my $n (1 .. 100) {
		$r->put('GET', 'k1');
		$r->put('SET', 'k1', "n$n");
		my $got = $r->get;
		$early++ if $got eq "n$n";
		$r->get;
	}
	is $early, 0, 'no read is overtaken by the write after it';
};

subtest 'users' => sub {
	my $c = $proxy->client;
	is $c->cmd('AUTH', 'alice', 'secret'), 'OK';
	is $c->cmd('SET', "alice:$_", $_), 'OK' for 1 .. 6;
	like Redis::is_error($c->cmd('GET', 'bob:1')), qr/^NOPERM/, 'what she may not';
	like Redis::is_error($c->cmd('MGET', 'alice:1', 'bob:1')), qr/^NOPERM/, 'nor as a part';
	like Redis::is_error($proxy->client->cmd('AUTH', 'alice', 'wrong')), qr/^WRONGPASS/;
	is $proxy->client->cmd('GET', 'bob:1'), undef, 'nobody else is her';
	my $r3 = $proxy->client;
	$r3->cmd('HELLO', 3, 'AUTH', 'alice', 'secret');
	is $r3->cmd('GET', 'alice:3'), 3, 'RESP3';
	is_deeply $r3->cmd('HGETALL', 'alice:none'), [], 'RESP3';
	is_deeply $r3->cmd('MGET', map { "alice:$_" } 0 .. 6), [ undef, 1 .. 6 ];
};

# Counters that only one client changes, in a pipeline each turn: after an error the value is asked for, since the
# command may have been executed or not; a reply that is not the next number is wrong.
my @clients = map { { name => "load$_", c => $proxy->client, n => {} } } 1 .. 6;
my %said;

sub turn
{
	my $wrong = 0;
	my @keys = map { "key$_" } 1 .. 6;
	for my $m (@clients) {
		$m->{c}->put('INCR', "$m->{name}:$_") for @keys;
		$m->{c}->put('ECHO', $m->{name});
	}
	my $errors = 0;
	for my $m (@clients) {
		for my $key (@keys) {
			my $got = $m->{c}->get;
			if (my $e = Redis::is_error($got)) {
				$errors++;
				$said{ $e =~ s/\d+/N/gr }++;
				$m->{unsure}{$key} = 1;
			} else {
				my $known = $m->{n}{$key} // 0;
				# What was acknowledged may be lost in a failover, so a number may come back.
				$wrong++ if $got !~ /^\d+$/ || ($got != $known + 1 && !$m->{unsure}{$key} && !$m->{failover});
				$m->{n}{$key} = $got;
				delete $m->{unsure}{$key};
			}
		}
		my $echo = $m->{c}->get;
		$wrong++ if !Redis::is_error($echo) && $echo ne $m->{name};
	}
	return ($errors, $wrong);
}

sub load_until
{
	my ($done, $what) = @_;
	my ($turns, $wrong, $errors) = (0, 0, 0);
	wait_for {
		my ($e, $w) = turn();
		$turns++, $errors += $e, $wrong += $w;
		$done->($e)
	} $what;
	return ($turns, $wrong, $errors);
}

subtest 'a replica hangs' => sub {
	kill STOP => $cluster->node(3)->pid;
	my $r = $proxy->client;
	$r->put('GET', "k$_") for 2 .. 40;
	my @wrong = grep { my $v = $r->get; (ref $v ? $$v : $v) ne $_ and diag("k$_: " . (ref $v ? $$v : $v)) | 1 } 2 .. 40;
	is_deeply \@wrong, [], 'the master answers in its place';
	kill CONT => $cluster->node(3)->pid;
};

subtest 'a master hangs for a moment' => sub {
	turn();
	kill STOP => $cluster->node(1)->pid;
	$_->{c}->put('GET', 'k1') for @clients;
	kill CONT => $cluster->node(1)->pid;
	$_->{c}->get for @clients;
	my ($turns, $wrong) = load_until(sub { !$_[0] }, 'a turn without errors');
	is $wrong, 0, 'nothing is wrong';
};

subtest 'a master dies' => sub {
	my $victim = 0;
	$_->{failover} = 1 for @clients;
	$cluster->node($victim)->kill9;
	my ($turns, $wrong, $errors) = load_until(
		sub { !$_[0] && ($cluster->master_of('#0', 1) // -1) == 3 }, 'its replica to take over');
	is $wrong, 0, "no reply was somebody else's ($turns turns, $errors errors)";
	is_deeply [ grep { !/^(?:ERR redisproxy: |CLUSTERDOWN )/ } keys %said ], [], 'errors that say why';
	$_->{failover} = 0 for @clients;
	($turns, $wrong, $errors) = load_until(sub { 1 }, 'a turn');
	is $wrong + $errors, 0, 'then all is well';
	is $proxy->client->cmd('AUTH', 'alice', 'secret'), 'OK', 'logins are checked by another node than the dead seed';
	is $proxy->client->cmd('PING'), 'PONG';
};

subtest 'a master hangs for good' => sub {
	%said = ();
	$_->{failover} = 1 for @clients;
	kill STOP => $cluster->node(1)->pid;
	my ($turns, $wrong, $errors) = load_until(
		sub { !$_[0] && ($cluster->master_of('#8000', 2) // -1) == 4 }, 'its replica to take over');
	is $wrong, 0, "no reply was somebody else's ($turns turns, $errors errors)";
	kill CONT => $cluster->node(1)->pid;
	$_->{failover} = 0 for @clients;
	($turns, $wrong, $errors) = load_until(sub { !$_[0] }, 'a turn without errors');
	is $wrong, 0, 'it comes back as a replica';
};

done_testing;
