#!/usr/bin/env perl

# A writer and a replica: where commands go, and what a client may rely on all the same.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

my $writer = Redis::server();
my $reader = Redis::server(args => [ '--replicaof', '127.0.0.1', $writer->redis_port ]);
wait_for { $reader->client->cmd('INFO', 'replication') =~ /master_link_status:up/ } 'replication';
my $proxy = Redis::proxy($writer, reader => $reader, args => ['--read-your-writes=1h']);

sub calls
{
	my ($server, $name) = @_;
	return $server->client->cmd('INFO', 'commandstats') =~ /cmdstat_$name:calls=(\d+)/ ? $1 : 0;
}

sub caught_up
{
	wait_for {
		my ($at) = $writer->client->cmd('INFO', 'replication') =~ /master_repl_offset:(\d+)/;
		$reader->client->cmd('INFO', 'replication') =~ /slave_repl_offset:$at\b/
	} 'the replica';
	return;
}

subtest 'who gets what' => sub {
	my $w = $proxy->client;
	is $w->cmd('SET', 'a', $_), 'OK' for 1 .. 3;
	is calls($writer, 'set'), 3, 'writes: the writer';
	is $w->cmd('GET', 'a'), 3, 'read your own write';
	is calls($writer, 'get'), 1, 'from the writer';
	caught_up();
	my $r = $proxy->client;
	is $r->cmd('GET', 'a'), 3;
	is calls($reader, 'get'), 1, 'who has not written: the reader';
	is $r->cmd('MULTI'), 'OK';
	is $r->cmd('GET', 'a'), 'QUEUED';
	is_deeply $r->cmd('EXEC'), [3];
	is calls($writer, 'get'), 2, 'GET within MULTI: the writer';
	is $proxy->client->cmd('EVAL', 'return redis.call("INCR", KEYS[1])', 1, 'n'), 1, 'scripts: the writer';
	is_deeply $r->cmd('CONFIG', 'GET', 'port'), [ 'port', $writer->redis_port ], 'CONFIG: the writer';
};

subtest 'a pipeline over both' => sub {
	my $window = Redis::proxy($writer, reader => $reader, args => ['--read-your-writes=0']);
	wait_for { $window->log =~ /commands/ } 'the table of commands';
	my $before = calls($reader, 'get');
	my $c = $window->client;
	my $bad = 0;
	for my $round (1 .. 20) {
		$c->put('SET', "k$_", "$round-$_"), $c->put('GET', "other$_"), $c->put('STRLEN', "k$_"), $c->put('ECHO', $_) for 1 .. 20;
		for my $n (1 .. 20) {
			my @got = map { $c->get } 1 .. 4;
			# A read may be behind a write; the order of replies may not be anything else.
			$bad++ if $got[0] ne 'OK' || defined $got[1] || $got[2] !~ /^\d+$/ || $got[3] ne $n;
		}
	}
	is $bad, 0, 'replies in order';
	# Behind a write that is under way, reads stay on its connection rather than wait for it: how many of those above went to
	# the reader depends on time. With nothing under way all do.
	$before = calls($reader, 'get');
	$c->cmd('GET', "other$_") for 1 .. 10;
	is calls($reader, 'get') - $before, 10, 'reads go to the reader';
	# A read that comes before a write never sees it.
	$c->cmd('SET', 'seq', 0);
	caught_up();
	my $early = 0;
	for my $n (1 .. 200) {
		$c->put('GET', 'seq');
		$c->put('SET', 'seq', $n);
		$early++ if $c->get >= $n;
		$c->get;
	}
	is $early, 0, 'no read is overtaken by the write after it';
	$window->stop;
};

subtest 'SCAN stays where it began' => sub {
	my $w = $writer->client;
	$w->cmd('SET', "scan:$_", 1) for 1 .. 500;
	caught_up();
	my $c = $proxy->client;
	my ($cursor, %seen) = (0);
	my $n = 0;
	do {
		my $r = $c->cmd('SCAN', $cursor, 'MATCH', 'scan:*', 'COUNT', 50);
		($cursor, my $keys) = @$r;
		@seen{@$keys} = ();
		# Writing in between makes other reads go to the writer.
		$c->cmd('SET', 'between', $n++);
	} while $cursor;
	is scalar keys %seen, 500, 'every key';
	is calls($writer, 'scan'), 0, 'all from the reader';
};

subtest 'a replica that lags' => sub {
	kill STOP => $reader->pid;
	my $c = $proxy->client;
	is $c->cmd('SET', 'lag', $_), 'OK' for 1 .. 3;
	is $c->cmd('GET', 'lag'), 3, 'the writer is read within the window';
	wait_for { $proxy->log =~ /is down: no answer to PING/ } 'the reader to count as down';
	is $proxy->client->cmd('GET', 'lag'), 3, 'then everybody reads from the writer';
	kill CONT => $reader->pid;
	my $address = '127.0.0.1:' . $reader->redis_port;
	wait_for { $proxy->metric("redisproxy_upstream_up{upstream=\"$address\"}") } 'it to be back';
	caught_up();
	my $before = calls($reader, 'get');
	is $proxy->client->cmd('GET', 'lag'), 3;
	is calls($reader, 'get'), $before + 1, 'and read again';
};

subtest 'a writer that does not read' => sub {
	my $proxy = Redis::proxy($writer, reader => $reader,
		args => [ '--shared-connections=1', '--response-timeout=60s', '--ping-timeout=60s' ]);
	is $proxy->client->cmd('SET', 'a', 3), 'OK';
	caught_up();
	kill STOP => $writer->pid;
	# More than the proxy and the kernel take for one connection.
	my @writers = Redis::flood($proxy, 150);
	my $c = $proxy->client;
	is $c->cmd('GET', 'a'), 3, 'holds up no reads';
	is $c->cmd('CLIENT', 'SETNAME', 'me'), 'OK', 'and nothing that is answered here';
	kill CONT => $writer->pid;
	is scalar(grep { $_->get ne 'OK' } @writers), 0, 'and the writes come';
	$writer->client->cmd('DEL', 'flood');
	caught_up();
};

subtest 'the reader dies' => sub {
	my @clients = map { $proxy->client } 1 .. 5;
	$_->cmd('GET', 'a') for @clients;
	$reader->kill9;
	my @got = map { $_->cmd('GET', 'a') } @clients;
	is scalar(grep { ref || $_ ne 3 } map { ref $_ && Redis::is_error($_) =~ /^ERR redisproxy/ ? 3 : $_ } @got), 0,
		'the answer, or an error that says why';
	is $_->cmd('GET', 'a'), 3, 'then the writer' for @clients;
	is $_->cmd('SET', 'b', 1), 'OK' for @clients;
};

done_testing;
