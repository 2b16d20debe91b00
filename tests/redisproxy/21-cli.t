#!/usr/bin/env perl

# redis-cli, as people type it: users of the server's ACL, databases, RESP3, bulk loading, scanning.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

plan(skip_all => 'no redis-cli here') if !grep { -x "$_/redis-cli" } split /:/, $ENV{PATH};
my $redis = Redis::server();
my $proxy = Redis::proxy($redis);
my $direct = $redis->client;
is $direct->cmd('ACL', 'SETUSER', 'alice', 'on', '>wonder', '~alice:*', '+@all', '-@dangerous'), 'OK';
is $direct->cmd('ACL', 'SETUSER', 'bob', 'on', '>build', '~bob:*', '&bob:*', '+@all'), 'OK';
$ENV{REDISCLI_HISTFILE} = '/dev/null';

# What it prints, for these words after its name, given this on its standard input.
my $n = 0;
sub cli
{
	my ($input, @args) = @_;
	my $file = spew(test_path('in' . $n++), $input);
	open my $p, '-|', 'sh', '-c', 'exec "$@" < "$0" 2>&1', $file, 'redis-cli', '-p', $proxy->redis_port, @args or die;
	local $/ = undef;
	my $out = <$p> // '';
	close $p;
	$out =~ s/^Warning: .*\n//m;
	return $out;
}
my @alice = ('--user', 'alice', '--pass', 'wonder');

subtest 'users and databases' => sub {
	is cli('', '-n', 3, 'SET', 'a', 'x'), "OK\n", 'database 3';
	is cli('', 'GET', 'a'), "\n", 'database 0 is another one';
	$direct->cmd('SELECT', 3);
	is $direct->cmd('GET', 'a'), 'x';
	is cli('', '-u', "redis://alice:wonder\@127.0.0.1:@{[ $proxy->redis_port ]}/5", 'SET', 'alice:1', 'of alice'), "OK\n", 'a user and a database';
	$direct->cmd('SELECT', 5);
	is $direct->cmd('GET', 'alice:1'), 'of alice';
	is cli('', '--user', 'bob', '--pass', 'build', '-n', 5, 'SET', 'bob:1', 'of bob'), "OK\n";
	like cli('', @alice, '-n', 5, 'GET', 'bob:1'), qr/^NOPERM/, "no other's keys";
	like cli('', @alice, 'FLUSHALL'), qr/^NOPERM/, 'no command that is not allowed';
	is cli("ACL WHOAMI\nSELECT 5\nACL WHOAMI\nGET alice:1\nMULTI\nSET alice:2 y\nGET alice:2\nEXEC\n", @alice),
		"alice\nOK\nalice\nof alice\nOK\nQUEUED\nQUEUED\nOK\ny\n", 'SELECT and MULTI later on';
	like cli("ACL WHOAMI\n", '--user', 'alice', '--pass', 'guessed'), qr/^AUTH failed: WRONGPASS.*^default$/sm, 'a wrong password';
	like cli("AUTH bob build\nACL WHOAMI\nAUTH alice wonder\nACL WHOAMI\nGET bob:1\n"), qr/^OK\nbob\nOK\nalice\nNOPERM/, 'one after the other';
	is $proxy->client->cmd('ACL', 'WHOAMI'), 'default', 'and nobody else is any of them';
};

subtest 'RESP3' => sub {
	is cli('', 'HSET', 'h', 'f', 'v'), "1\n";
	is cli('', '--no-raw', '-3', 'HGETALL', 'h'), "1# \"f\" => \"v\"\n", 'a map';
	is cli('', '--no-raw', 'HGETALL', 'h'), "1) \"f\"\n2) \"v\"\n", 'an array without';
	is cli("ACL WHOAMI\nSELECT 5\nGET alice:1\n", '--no-raw', '-3', @alice), "\"alice\"\nOK\n\"of alice\"\n", 'with a user';
};

subtest 'much at once' => sub {
	like cli(join('', map { Redis::encode('SET', "bulk:$_", $_) } 1 .. 5000), '--pipe', '-n', 7), qr/errors: 0, replies: 5000/, '--pipe';
	$direct->cmd('SELECT', 7);
	is $direct->cmd('DBSIZE'), 5000;
	is scalar(split /\n/, cli('', '-n', 7, '--scan', '--pattern', 'bulk:*')), 5000, '--scan';
	like cli('', '-n', 7, '--bigkeys'), qr/^Sampled 5000 keys/m, '--bigkeys';
	is cli('x' x 1_000_000, '-n', 7, '-x', 'SET', 'large'), "OK\n", '-x with a megabyte';
	is cli('', '-n', 7, 'STRLEN', 'large'), "1000000\n";
	is cli('', '-r', 20, 'INCR', 'times'), join('', map { "$_\n" } 1 .. 20), '-r';
	is cli('', '--eval', spew(test_path('script.lua'), 'return {KEYS[1], ARGV[1]}'), 'k', ',', 'v'), "k\nv\n", '--eval';
};

subtest 'messages' => sub {
	my $p = process('cli', [ 'sh', '-c', 'exec "$@" >&2', 'sh', 'redis-cli', '-p', $proxy->redis_port, '--user', 'bob', '--pass', 'build', 'SUBSCRIBE', 'bob:news' ],
		ready => 0, exit => qr/^(?:0|1|15)$/);
	wait_for { $direct->cmd('PUBSUB', 'NUMSUB', 'bob:news')->[1] } 'the subscriber';
	is cli('', '--user', 'bob', '--pass', 'build', 'PUBLISH', 'bob:news', 'hello'), "1\n";
	wait_for { $p->log =~ /hello/ } 'the message';
	pass 'heard';
	like cli('', '--user', 'bob', '--pass', 'build', 'SUBSCRIBE', 'news'), qr/^NOPERM/, 'not on channels of others';
};

done_testing;
