#!/usr/bin/env perl

# What the monitor tells: the slow log and the hot keys, in bounded memory and never a value.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;

my $redis = Redis::server(args => [ '--enable-debug-command', 'yes' ]);
my $address = '127.0.0.1:' . $redis->redis_port;

# FNV-1a, as key_hash.h says.
sub fnv
{
	use bigint;
	my $hash = 14695981039346656037;
	$hash = (($hash ^ ord) * 1099511628211) % (1 << 64) for split //, $_[0];
	return substr '0' x 16 . substr($hash->as_hex, 2), -16;
}
sub report { my ($proxy, $path) = @_; my $r = http('GET', $proxy->url . $path); return $r->{status} == 200 ? json_decode($r->{body}) : $r }

subtest 'slow log' => sub {
	my $proxy = Redis::proxy($redis, args => [ '--slowlog-threshold=50ms', '--slowlog-entries=3' ]);
	my $c = $proxy->client;
	is $c->cmd('SET', 'quick', 'secret-value'), 'OK';
	is_deeply report($proxy, '/slowlog'), { threshold_ms => 50, total => 0, entries => [] }, 'what is quick is not in it';
	my $sleeper = $redis->client;
	for my $n (1 .. 5) {
		$sleeper->put('DEBUG', 'SLEEP', '0.2');
		# It is asleep when somebody's command is not answered at once.
		$c->put('SET', "slow$n", 'secret-value');
		is $c->get, 'OK';
		$sleeper->get;
	}
	$c->cmd('AUTH', 'secret-value');
	my $log = report($proxy, '/slowlog');
	cmp_ok $log->{total}, '>=', 1, 'slow ones are counted';
	cmp_ok scalar @{ $log->{entries} }, '<=', 3, 'and kept, as many as the setting says';
	my ($entry) = @{ $log->{entries} };
	is $entry->{command}, 'set';
	is $entry->{id}, $log->{total} - 1, 'the latest first';
	cmp_ok $entry->{duration_us}, '>=', 50_000, 'its duration';
	is $entry->{upstream}, $address, 'its server';
	like $entry->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
	ok !exists $entry->{key}, 'no key';
	ok scalar(grep { $entry->{key_hash} eq fnv("slow$_") } 1 .. 5), 'but its hash';
	unlike http('GET', $proxy->url . '/slowlog')->{body}, qr/secret/, 'never a value';
	is http('POST', $proxy->url . '/slowlog')->{status}, 405;
	undef $c;
	$proxy->stop;
};

subtest 'with keys' => sub {
	my $proxy = Redis::proxy($redis, args => [ '--slowlog-threshold=0', '--show-keys', '--hot-keys=8' ]);
	my $c = $proxy->client;
	$c->cmd('SET', "k\"\xff", 'secret-value');
	$c->cmd('GET', 'x' x 1000);
	$c->cmd('PING');
	like Redis::is_error($c->cmd('LPUSH', "k\"\xff", 'secret-value')), qr/WRONGTYPE/;
	my $log = report($proxy, '/slowlog');
	is_deeply [ map { $_->{command} } @{ $log->{entries} } ], [qw(lpush ping get set)];
	is_deeply [ map { $_->{failed} ? 1 : 0 } @{ $log->{entries} } ], [ 1, 0, 0, 0 ], 'which failed';
	is $log->{entries}[2]{key}, 'x' x 64, 'the beginning of a long key';
	is $log->{entries}[3]{key}, "k\"\x{fffd}", 'bytes that are no text';
	$c->put('EVAL', 'return 1', 0), $c->get;
	$c->put('CONFIG', 'SET', 'requirepass', ''), $c->get;
	ok !exists report($proxy, '/slowlog')->{entries}[$_]{key}, 'no key where there is none' for 0, 1;
	undef $c;
	$proxy->stop;
};

subtest 'hot keys' => sub {
	my $proxy = Redis::proxy($redis, args => [ '--show-keys', '--hot-keys=16' ]);
	my $c = $proxy->client;
	for my $round (1 .. 100) {
		my $n = 0;
		$c->put('GET', 'hot'), $c->put('GET', 'cold:' . int rand 10_000), $n += 2 for 1 .. 40;
		$c->put('INCR', 'warm'), $n++ for 1 .. 20;
		$c->get for 1 .. $n;
	}
	my $hot = report($proxy, '/hotkeys');
	is $hot->{keys}[0]{key}, 'hot', 'the hottest';
	is $hot->{keys}[1]{key}, 'warm', 'the next';
	is $hot->{keys}[0]{key_hash}, fnv('hot');
	cmp_ok abs($hot->{keys}[0]{share} - 0.4), '<', 0.15, "its share is about right: $hot->{keys}[0]{share}";
	cmp_ok abs($hot->{commands} - 10_000), '<', 2500, "so is the number of commands: $hot->{commands}";
	cmp_ok scalar @{ $hot->{keys} }, '<=', 16, 'bounded';
	undef $c;
	$proxy->stop;
};

subtest 'switched off' => sub {
	my $proxy = Redis::proxy($redis, args => [ '--slowlog-entries=0', '--hot-keys=0' ]);
	is $proxy->client->cmd('SET', 'a', 1), 'OK';
	is http('GET', $proxy->url . $_)->{status}, 404, $_ for qw(/slowlog /hotkeys);
};

done_testing;
