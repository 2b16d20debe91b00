#!/usr/bin/env perl

# A server that is known by a name: looked up as every program of the machine does, again when there is reason to.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

plan skip_all => 'a file of hosts of its own needs root' if $> != 0;
plan skip_all => 'mount namespaces are not allowed here' if system('unshare -m true 2>/dev/null') != 0;

my $first = Redis::server(host => '127.0.0.2');
my $port = $first->redis_port;
my $second = Redis::server(host => '127.0.0.3', port => $port);

# In place: the file is mounted.
my $hosts = spew(test_path('hosts'), '');
sub names { my %at = @_; return spew($hosts, join '', map { "$at{$_} $_\n" } sort keys %at) }

names('redis.test' => '127.0.0.2');
my $proxy = Redis::proxy("redis.test:$port", hosts => $hosts, args => [ '--ping-interval=100ms', '--ping-timeout=500ms' ]);
my $c = $proxy->client;

subtest 'a name' => sub {
	is $c->cmd('SET', 'a', 'first'), 'OK';
	is $first->client->cmd('GET', 'a'), 'first';
};

subtest 'the name moves when the server is no writer any more' => sub {
	names('redis.test' => '127.0.0.3');
	$first->client->cmd('REPLICAOF', '127.0.0.3', $port);
	like Redis::is_error($c->cmd('SET', 'a', 'second')), qr/^READONLY /, 'the server says so, once';
	wait_for { !Redis::is_error($c->cmd('SET', 'a', 'second')) } 'the other one';
	is $second->client->cmd('GET', 'a'), 'second', 'the same connection, the new server';
};

subtest 'the name moves when the server dies' => sub {
	$first->client->cmd('REPLICAOF', 'NO', 'ONE');
	names('redis.test' => '127.0.0.2');
	$second->kill9;
	wait_for { !Redis::is_error($c->cmd('SET', 'a', 'again')) } 'the first one';
	is $first->client->cmd('GET', 'a'), 'again';
};

subtest 'a name that is nobody\'s yet' => sub {
	my $early = Redis::proxy("late.test:$port", hosts => $hosts, args => ['--upstream-wait=300ms']);
	is Redis::is_error($early->client->cmd('GET', 'a')), 'ERR redisproxy: no connection to the upstream', 'an error in bounded time';
	wait_for { $early->log =~ /late\.test:$port cannot be looked up: / } 'the log to say why';
	names('late.test' => '127.0.0.2', 'redis.test' => '127.0.0.2');
	wait_for { !Redis::is_error($early->client->cmd('GET', 'a')) } 'the name';
	is $early->client->cmd('GET', 'a'), 'again', 'and then it is';
};

done_testing;
