#!/usr/bin/env perl

# The access log of gatewayd's own HTTP listener: hashd's fields, whatever way a request ends; no line for what hashd has in its own.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);
use IO::Socket::INET;

my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock', env => { PROVIDER => 'mock', STORE => 'none', MAX_BODY => '1MiB' });
my $TRACE = '0af7651916cd43dd8448eb211c80319c';

sub post
{
	my ($text, %header) = @_;
	my $body = qq({"model":"text-embedding-3-small","input":"$text","dimensions":8});
	return (http('POST', $d->url . '/v1/embeddings?a=b', [ 'Content-Type' => 'application/json', %header ], $body), $body);
}
sub lines { return grep { ($_->{body} // '') eq 'request' } $d->log_lines }
sub wait_line { my ($what, $is) = @_; my @l; wait_for { @l = grep { $is->($_) } lines() } $what; return $l[0] }

subtest 'fields' => sub {
	my ($r, $body) = post('one', 'User-Agent' => 'ua/1', 'X-Forwarded-For' => '192.0.2.1', Traceparent => "00-$TRACE-b7ad6b7169203331-01");
	my $line = wait_line('its line', sub { ($_[0]{body_hash} // '') eq sha256_hex($body) });
	my %want = (name => 'gatewayd.0', severitytext => 'INFO', method => 'POST', target => '/v1/embeddings?a=b', status => 200, cache => 'MISS',
		bytes_in => length $body, bytes_out => length $r->{body}, client => '127.0.0.1', user_agent => 'ua/1', x_forwarded_for => '192.0.2.1',
		traceid => $TRACE);
	is $line->{$_}, $want{$_}, $_ for sort keys %want;
	like $line->{spanid}, qr/^(?!b7ad6b7169203331)[0-9a-f]{16}$/, 'a span of our own';
	cmp_ok $line->{duration_us}, '>', 0, 'duration';
	ok !$line->{aborted}, 'not aborted';
};

subtest 'other ends' => sub {
	http('GET', $d->url . '/nothing/here');
	is wait_line('a wrong path', sub { $_[0]{target} eq '/nothing/here' })->{status}, 404, 'a wrong path';
	http('POST', $d->url . '/v1/embeddings?large', [ Traceparent => "00-$TRACE-b7ad6b7169203331-01" ], 'x' x (2 << 20));
	my $line = wait_line('a body too large', sub { $_[0]{target} eq '/v1/embeddings?large' });
	is $line->{status}, 413, 'refused by the server';
	is $line->{traceid}, $TRACE, 'with its trace';
	my $socket = IO::Socket::INET->new(PeerAddr => $d->address) or die $!;
	print $socket "POST /v1/embeddings?gone HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf";
	close $socket;
	$line = wait_line('one that left', sub { $_[0]{target} eq '/v1/embeddings?gone' });
	is $line->{status}, 499, 'the client left';
	ok $line->{aborted}, 'is said';
};

subtest 'what has no line here' => sub {
	my $before = lines();
	http('GET', $d->url . $_) for qw(/healthz /readyz /metrics);
	my $params = [ 'GET', '/v1/models', [ [ 'host', 'x' ] ], mp_bin(''), sha256_hex(''), 'test', '', JSON::PP::false(), 0 ];
	is $d->rpc->call('request', $params)->[0], 200, 'a request over RPC';
	my (undef, $body) = post('two');
	wait_line('the next', sub { ($_[0]{body_hash} // '') eq sha256_hex($body) });
	is lines() - $before, 1, 'probes, and what comes over RPC';
};

subtest 'sampling' => sub {
	$d->restart(env => { %{ $d->{env} }, GATEWAYD_ACCESS_LOG_SAMPLE => '0' });
	my $before = lines();
	post("three $_") for 1 .. 5;
	$d->stop; # writes what it has
	is lines() - $before, 0, 'none of what went well';
};

done_testing;
