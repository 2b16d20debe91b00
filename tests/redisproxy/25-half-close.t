#!/usr/bin/env perl

# A client that has said all it wants to say (its last byte is followed by the end of its stream) gets the
# replies that redis-server itself would give it, and then the end.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Socket qw(SOL_SOCKET SO_LINGER);
use Redis;

my $redis = Redis::server();
my $proxy = Redis::proxy($redis);

# Everything that comes back for these commands (or raw bytes), up to the end of the stream.
sub all_of
{
	my ($to, @commands) = @_;
	my $c = $to->client;
	$c->raw(join '', map { ref $_ eq 'SCALAR' ? $$_ : Redis::encode(@$_) } @commands);
	shutdown $c->socket, 1;
	ok $c->closed, 'an end';
	return $c->unread;
}

my $big = 'x' x 300_000;
my %pipelines = (
	'plain commands' => [ [qw(SET a 1)], [qw(GET a)], ['NOSUCH'], [qw(PUBLISH news 1)] ],
	'a transaction' => [ [qw(MULTI)], [qw(SET a 2)], [qw(GET a)], [qw(EXEC)], [qw(GET a)] ],
	'WATCH and no end of it' => [ [qw(WATCH a)], [qw(SET a 3)], [qw(GET a)] ],
	'a transaction cut off' => [ [qw(MULTI)], [qw(SET a 4)] ],
	'a pop that need not wait' => [ [qw(RPUSH l 1)], [qw(BLPOP l 0)], [qw(LLEN l)] ],
	'a script' => [ [qw(EVAL), 'return redis.call("GET", "a")', 0], [qw(GET a)] ],
	'half a command' => [ [qw(SET a 1)], \"*2\r\n\$3\r\nGET\r\n\$1\r\n" ],
	'half a large command' => [ [qw(MULTI)], [qw(SET a 1)], \("*3\r\n\$3\r\nSET\r\n\$1\r\na\r\n\$500000\r\n" . 'x' x 400_000) ],
	'a large command' => [ [qw(SET big), $big], [qw(STRLEN big)], [qw(GET big)] ],
	'all together' => [ [qw(SET b 1)], [qw(MULTI)], [qw(INCR b)], [qw(EXEC)], [qw(RPUSH l x)], [qw(BLPOP l 0)],
		[qw(SELECT 1)], [qw(SET b 5)], [qw(MULTI)], [qw(INCR b)], [qw(EXEC)], [qw(GET b)] ],
);
for my $name (sort keys %pipelines) {
	my @got;
	for my $to ($redis, $proxy) {
		$redis->client->cmd('FLUSHALL');
		push @got, all_of($to, @{ $pipelines{$name} });
	}
	ok $got[0] eq $got[1], $name or diag "directly:\n", substr($got[0], 0, 300), "\nthrough the proxy:\n", substr($got[1], 0, 300);
}

# redis-server itself drops replies that its socket does not take at once.
my $all = all_of($proxy, [qw(SET big), $big], [qw(RPUSH l x)], [qw(BLPOP l 0)], ([qw(GET big)]) x 20);
is length $all, length("+OK\r\n:1\r\n*2\r\n\$1\r\nl\r\n\$1\r\nx\r\n") + 20 * length("\$300000\r\n$big\r\n"), 'large replies';

subtest 'the end comes with a reply for which more waits' => sub {
	$redis->client->cmd('FLUSHALL');
	my $c = $proxy->client;
	kill STOP => $redis->pid;
	# The pop waits for its connection until the push is answered.
	$c->raw(join '', map { Redis::encode(@$_) } [qw(RPUSH l x)], [qw(BLPOP l 0)], [qw(GET a)]);
	# The proxy has read that when it has read this.
	is $proxy->client->cmd(qw(CLIENT SETNAME last)), 'OK';
	kill STOP => $proxy->pid;
	kill CONT => $redis->pid;
	wait_for { $redis->client->cmd(qw(LLEN l)) == 1 } 'the push';
	shutdown $c->socket, 1;
	kill CONT => $proxy->pid;
	ok $c->closed, 'an end';
	is $c->unread, ":1\r\n*2\r\n\$1\r\nl\r\n\$1\r\nx\r\n\$-1\r\n", 'all of it';
};

subtest 'a pop that would wait' => sub {
	$redis->client->cmd('FLUSHALL');
	is all_of($proxy, [qw(SET a 1)], [qw(BLPOP nothing 0)]), "+OK\r\n", 'what went before it';
	wait_for { ($redis->client->cmd('INFO', 'clients') =~ /blocked_clients:(\d+)/)[0] == 0 } 'the server to be told';
	# And where more was to come, for which it waits.
	is all_of($proxy, [qw(SET a 1)], [qw(BLPOP nothing 0)], [qw(SUBSCRIBE news)]), "+OK\r\n", 'and with more behind it';
	wait_for { ($redis->client->cmd('INFO', 'clients') =~ /blocked_clients:(\d+)/)[0] == 0 } 'the server to be told';
	pass 'nobody is blocked';
};

# So much is unread behind the pop that the proxy does not read on, and cannot see the end where the bytes end.
for my $how (
	[ 'no more bytes' => sub { shutdown $_[0], 1 } ],
	[ 'its end' => sub { CORE::close $_[0] } ],
	[ 'a reset' => sub { setsockopt $_[0], SOL_SOCKET, SO_LINGER, pack 'II', 1, 0; CORE::close $_[0] } ])
{
	subtest "a pop with much behind it, then $how->[0]" => sub {
		my $c = $proxy->client;
		$c->raw(Redis::encode(qw(BLPOP nothing 0)) . Redis::encode(qw(SET a 1)) x 5000);
		wait_for { ($redis->client->cmd('INFO', 'clients') =~ /blocked_clients:(\d+)/)[0] == 1 } 'the pop';
		# The proxy has read what it wants to when it has answered this.
		is $proxy->client->cmd('PING'), 'PONG', 'others are served';
		$how->[1]->($c->socket);
		wait_for { ($redis->client->cmd('INFO', 'clients') =~ /blocked_clients:(\d+)/)[0] == 0 } 'the server to be told';
		wait_for { $proxy->metric('redisproxy_clients') == 0 } 'the proxy to be rid of it';
		pass 'noticed';
	};
}

subtest 'the end of half a large command comes before the replies to what went before it' => sub {
	kill STOP => $redis->pid;
	my $c = $proxy->client;
	$c->raw(Redis::encode(qw(MULTI)) . Redis::encode(qw(SET a 1)) . "*3\r\n\$3\r\nSET\r\n\$1\r\na\r\n\$500000\r\n" . 'x' x 300_000);
	shutdown $c->socket, 1;
	# The proxy answers this itself; by the last time it has read what it could of the other.
	my $other = $proxy->client;
	is $other->cmd(qw(CLIENT SETNAME last)), 'OK' for 1 .. 20;
	kill CONT => $redis->pid;
	ok $c->closed, 'an end';
	is $c->unread, "+OK\r\n+QUEUED\r\n", 'the replies';
};

subtest 'what was begun ends with it' => sub {
	my $watcher = $proxy->client;
	$watcher->cmd('SET', 'a', 1);
	all_of($proxy, [qw(MULTI)], [qw(SET a 2)]);
	is $watcher->cmd('GET', 'a'), 1, 'no half transaction';
	wait_for { $proxy->metric('redisproxy_clients') == 1 } 'the proxy to be rid of them';
	pass 'nothing is left';
};

done_testing;
