#!/usr/bin/env perl

# TLS to a real redis-server with tls-port: certificates made here, with and without a client's certificate, and servers
# that are not who they should be.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Redis;
use Tls;

my $dir = test_dir();
Tls::authority('ca');
Tls::authority('stranger');
Tls::certificate('server', 'ca', 'DNS:redis.test,IP:127.0.0.1');
Tls::certificate('named', 'ca', 'DNS:redis.test');
Tls::certificate('client', 'ca', 'DNS:client.test');

sub tls_server
{
	my ($name, $auth, @more) = @_;
	# A port that was free may be taken a moment later.
	for my $try (1 .. 3) {
		my $port = Redis::free_port();
		my $redis = eval {
			Redis::server(args => [ Tls::server_args($port, $name, $auth), @more ])
		};
		return ($redis, "127.0.0.1:$port") if $redis;
		die $@ if $@ !~ /no redis-server/;
	}
	die 'no redis-server with TLS';
}

sub tls_proxy
{
	my ($to, %o) = @_;
	return Redis::proxy($to, env => $o{env}, args => [ '--tls', '--upstream-wait=' . ($o{wait} // '10s'), @{ $o{args} // [] } ]);
}

my ($redis, $address) = tls_server('server', 'no');

subtest 'all that goes without TLS' => sub {
	my $proxy = tls_proxy($address, args => ["--tls-ca-file=$dir/ca.pem"]);
	my $c = $proxy->client;
	is $c->cmd('SET', 'a', 1), 'OK';
	my ($bad, $value) = (0, 'v' x 100_000);
	for my $round (1 .. 5) {
		for (1 .. 40) { $c->put('SET', "k$_", "$round$_$value"); $c->put('GET', "k$_"); $c->put('ECHO', $_) }
		for (1 .. 40) { $bad++ if $c->get ne 'OK' || $c->get ne "$round$_$value" || $c->get ne $_ }
	}
	is $bad, 0, 'pipelines of 100 KB values, in order';
	my $large = 'w' x 3_000_000;
	is $c->cmd('SET', 'large', $large), 'OK';
	ok $c->cmd('GET', 'large') eq $large, '3 MB';
	$c->put('MULTI'), $c->put('INCR', 'n'), $c->put('EXEC');
	is_deeply [ map { $c->get } 1 .. 3 ], [ 'OK', 'QUEUED', [1] ], 'MULTI';
	my $s = $proxy->client;
	is_deeply $s->cmd('SUBSCRIBE', 'ch'), [ 'subscribe', 'ch', 1 ];
	$c->cmd('PUBLISH', 'ch', 'x' x 200_000);
	is length $s->get->[2], 200_000, 'pub/sub';
	my $slow = $proxy->client;
	$slow->put('GET', 'large') for 1 .. 20;
	is $proxy->client->cmd('PING'), 'PONG';
	is scalar(grep { length $slow->get == 3_000_000 } 1 .. 20), 20, 'a reader that comes late gets all of it';
	wait_for { $proxy->log =~ /\d+ commands/ } 'COMMAND over TLS too';
	is $proxy->metric("redisproxy_upstream_up{upstream=\"$address\"}"), 1, 'health checks, too';
};

subtest 'a certificate of our own' => sub {
	my ($strict, $at) = tls_server('server', 'yes');
	my $with = tls_proxy($at, args => [ "--tls-ca-file=$dir/ca.pem", "--tls-cert-file=$dir/client.pem", "--tls-key-file=$dir/client.key" ]);
	is $with->client->cmd('SET', 'a', 1), 'OK', 'with it';
	my $without = tls_proxy($at, args => ["--tls-ca-file=$dir/ca.pem"], wait => '300ms');
	like Redis::is_error($without->client->cmd('SET', 'a', 1)), qr/^ERR redisproxy: /, 'without it';
};

subtest 'who is not who it should be' => sub {
	my ($named, $at) = tls_server('named', 'no');
	my $proxy = tls_proxy($at, args => ["--tls-ca-file=$dir/ca.pem"], wait => '300ms');
	like Redis::is_error($proxy->client->cmd('GET', 'a')), qr/^ERR redisproxy: /, 'another name';
	like $proxy->log, qr/TLS: IP address mismatch/, 'the log says it';

	$proxy = tls_proxy($at, args => [ "--tls-ca-file=$dir/ca.pem", '--tls-server-name=redis.test' ]);
	is $proxy->client->cmd('GET', 'a'), undef, 'the name that we expect';

	$proxy = tls_proxy($at, args => ["--tls-ca-file=$dir/stranger.pem"], wait => '300ms');
	like Redis::is_error($proxy->client->cmd('GET', 'a')), qr/^ERR redisproxy: /, 'another authority';
	like $proxy->log, qr/TLS: (?:self[- ]signed certificate in certificate chain|unable to get local issuer certificate)/, 'the log says it';

	$proxy = tls_proxy($at, args => ['--no-tls-verify']);
	is $proxy->client->cmd('GET', 'a'), undef, 'unless nobody asks';

	# A server without TLS.
	$proxy = tls_proxy($redis, args => ["--tls-ca-file=$dir/ca.pem"], wait => '300ms');
	like Redis::is_error($proxy->client->cmd('GET', 'a')), qr/^ERR redisproxy: /, 'no TLS there';
	wait_for { $proxy->log =~ /TLS: the answer is not TLS: a port without it\?|no answer to the TLS handshake: a port without TLS\?/ } 'the log to say so';

	# And the other way round.
	$proxy = Redis::proxy($at, args => [ '--upstream-wait=300ms', '--ping-interval=100ms' ]);
	like Redis::is_error($proxy->client->cmd('GET', 'a')), qr/^ERR /, 'TLS there';
	wait_for { $proxy->log =~ /does it want TLS \(--tls\)\?/ } 'the log to say so';
};

subtest 'the server comes back' => sub {
	my ($mortal, $at) = tls_server('server', 'no');
	my $proxy = tls_proxy($at, wait => '300ms', args => ["--tls-ca-file=$dir/ca.pem"]);
	my $c = $proxy->client;
	wait_for { !Redis::is_error($c->cmd('SET', 'a', 1)) } 'the connection';
	kill STOP => $mortal->pid;
	$c->put('GET', 'a');
	kill CONT => $mortal->pid;
	is $c->get, 1, 'after a pause';
	$mortal->kill9;
	ok Redis::is_error($c->cmd('GET', 'a')), 'lost';
	$mortal = Redis::server(port => $mortal->redis_port, args => [ Tls::server_args($at =~ /:(\d+)/, 'server', 'no') ]);
	wait_for { !Redis::is_error($c->cmd('SET', 'a', 2)) } 'the server';
	is $c->cmd('GET', 'a'), 2, 'and back';
};

subtest 'files that cannot be used' => sub {
	spew("$dir/broken.pem", "no certificate\n");
	for ([ "--tls-ca-file=$dir/none.pem", 'none.pem' ], [ "--tls-cert-file=$dir/broken.pem", 'broken.pem' ]) {
		my $said = qx{@{[ eg_bin('redisproxy') ]} --run-dir=$dir/x --local-address=$dir/x.sock --monitor-address= --tls $_->[0] 2>&1};
		isnt $?, 0, 'it does not start';
		like $said, qr/\Q$_->[1]\E/, 'and names the file';
	}
};

done_testing;
