#!/usr/bin/env perl

# A server that is not there, or says nothing: no command waits for longer than --upstream-wait.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Cluster;
use Redis;
use Time::HiRes 'time';

my $N = 20;
my $WAIT = 0.5;
my @ARGS = ('--upstream-wait=500ms', '--ping-interval=100ms', '--ping-timeout=300ms');

# A pipeline, of which all are to be answered alike, within the wait and something for a busy machine.
sub pipeline
{
	my ($c, $like) = @_;
	my $begin = time;
	$c->raw(Redis::encode(qw(GET a)) x $N . Redis::encode(qw(MULTI)));
	my @replies = map { $c->get } 0 .. $N;
	my $took = time - $begin;
	is scalar(grep { (Redis::is_error($_) // '') =~ $like } @replies), $N + 1, 'an error for each';
	cmp_ok $took, '<', 4 * $WAIT, sprintf 'all of them after %.1f s', $took;
}

subtest 'no server: a pipeline waits once' => sub {
	my $proxy = Redis::proxy('127.0.0.1:' . Redis::free_port(), args => \@ARGS);
	my $c = $proxy->client;
	pipeline($c, qr/^ERR redisproxy: no connection to the upstream/) for 1 .. 2;
};

subtest 'a cluster without slots: a pipeline waits once' => sub {
	my $redis = Redis::server(cluster => 1, args => [qw(--cluster-enabled yes)]);
	my $proxy = Redis::proxy($redis, args => [ @ARGS, '--mode=cluster' ]);
	my $c = $proxy->client;
	my $begin = time;
	$c->raw(Redis::encode(qw(GET a)) x $N);
	my @replies = map { $c->get } 1 .. $N;
	is scalar(grep { Redis::is_error($_) } @replies), $N, 'an error for each';
	cmp_ok time - $begin, '<', 4 * $WAIT, 'all of them in time';
	wait_for { $proxy->log =~ /the cluster has no slots yet/ } 'the log to say why';
};

subtest 'a server that says nothing gets no commands' => sub {
	my $redis = Redis::server();
	my $proxy = Redis::proxy($redis, args => \@ARGS);
	my ($before, $popping, $multi) = map { $proxy->client } 1 .. 3;
	is $before->cmd(qw(SET a 1)), 'OK';
	is $multi->cmd(qw(MULTI)), 'OK';
	$popping->put(qw(BLPOP list 0));
	wait_for { $redis->client->cmd(qw(INFO clients)) =~ /blocked_clients:1/ } 'the pop';
	kill STOP => $redis->pid;
	$before->put(qw(INCR a));
	my $begin = time;
	like Redis::is_error($before->get), qr/^ERR redisproxy: the upstream does not answer: the command may have been executed/,
		'what was under way';
	cmp_ok time - $begin, '<', 4, 'is answered when the server counts as down';
	wait_for { $proxy->log =~ /is down: no answer to PING/ } 'the log to say so';
	pipeline($_, qr/^ERR redisproxy: no connection to the upstream/) for $before, $proxy->client;
	kill CONT => $redis->pid;
	wait_for { !Redis::is_error($before->cmd(qw(GET a))) } 'it to be up again';
	is $before->cmd(qw(RPUSH list x)), 1;
	is_deeply $popping->get, [qw(list x)], 'a pop has waited for it';
	is_deeply $multi->cmd(qw(EXEC)), [], 'and so has a transaction';
};

subtest 'a server with no room for one more client' => sub {
	my $redis = Redis::server();
	my $admin = $redis->client;
	$admin->cmd(qw(CONFIG SET maxclients 1));
	my $proxy = Redis::proxy($redis, args => \@ARGS);
	like Redis::is_error($proxy->client->cmd(qw(GET a))), qr/^ERR /, 'an error';
	wait_for { $proxy->log =~ /is down: ERR max number of clients reached/ } 'the log to say why';
	$admin->cmd(qw(CONFIG SET maxclients 100));
	my $c = $proxy->client;
	wait_for { !Redis::is_error($c->cmd(qw(SET a 1))) } 'it to work';
	wait_for { $redis->client->cmd(qw(INFO clients)) =~ /connected_clients:(\d+)/ && $1 >= 3 } 'all connections';
	$admin->cmd(qw(CONFIG SET maxclients 1));
	ok Redis::is_error($c->cmd(qw(MULTI))), 'no connection of its own';
	wait_for { $proxy->log =~ /says that its maxclients is reached/ } 'the log to say so';
};

done_testing;
