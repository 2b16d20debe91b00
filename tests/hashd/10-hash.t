#!/usr/bin/env perl

# The body hash, however the body comes; what goes to gatewayd and what does not; the answer.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);

my $gatewayd = fake_gatewayd(0);
my $hashd = daemon('hashd', http => 1, rpc => 'hashd.sock');
wait_for { http('GET', $hashd->url . '/v1/models')->{status} == 200 } 'gatewayd to be up';

sub account { return json_decode($_[0]{body}) }

subtest 'the hash of every kind of body' => sub {
	my @bodies = (
		[ 'one byte', 'x' ], [ 'JSON', '{"input":"a"}' ], [ 'zero bytes inside', "\0" x 100 ],
		[ 'the largest inline one', 'i' x 16384 ], [ 'one more', 'i' x 16385 ],
		[ '300 kB', join '', map { chr($_ % 256) } 1 .. 300_000 ], [ '5 MB', "line of text\n" x 400_000 ],
	);
	my $c = EG::HTTP->new($hashd->url);
	for (@bodies) {
		my ($name, $body) = @$_;
		my $sha = sha256_hex($body);
		my $r = $c->request('POST', '/v1/embeddings', [], $body);
		my $a = account($r);
		is $r->{headers}{'x-body-hash'}, $sha, "$name: told to the client";
		is $a->{body_hash}, $sha, "$name: told to gatewayd";
		is $a->{body_sha}, $sha, "$name: the body arrived";
		is $a->{body_len}, length $body, "$name: its length";
		is !!$a->{chunked}, length $body > 16384, "$name: as chunks if large";
		for my $size (1, 7, 1000, 65536, 100_000) {
			next if length($body) / $size > 2000;
			my $chunked = join('', map({ sprintf "%x\r\n%s\r\n", length, $_ } unpack "(a$size)*", $body)) . "0\r\n\r\n";
			$r = $c->request('POST', '/v1/embeddings', [ 'Transfer-Encoding' => 'chunked' ], $chunked);
			is $r->{headers}{'x-body-hash'}, $sha, "$name in chunks of $size";
			is account($r)->{body_sha}, $sha, "$name in chunks of $size arrived";
		}
	}
};

subtest 'no body, no hash' => sub {
	for ([ 'GET', undef ], [ 'POST', '' ], [ 'DELETE', undef ]) {
		my ($method, $body) = @$_;
		my $r = http($method, $hashd->url . '/v1/models', [], $body);
		is $r->{status}, 200, "$method answered";
		is $r->{headers}{'x-body-hash'}, undef, 'no hash in the answer';
		is account($r)->{body_hash}, '', 'nor for gatewayd';
	}
	my $r = http('POST', $hashd->url . '/v1/models', [ 'Transfer-Encoding' => 'chunked' ], "0\r\n\r\n");
	is account($r)->{body_hash}, '', 'an empty chunked body is none';
};

subtest 'a body in pieces' => sub {
	my $body = join ',', 1 .. 30;
	my $request = EG::HTTP::format_request('POST', '/v1/embeddings', [], $body);
	my $bad = 0;
	for my $cut (1 .. length($request) - 1) {
		my $c = EG::HTTP->new($hashd->url);
		$c->send(substr $request, 0, $cut);
		$c->send(substr $request, $cut);
		$bad++ if $c->response->{headers}{'x-body-hash'} ne sha256_hex($body);
	}
	is $bad, 0, 'cut at every byte';
};

subtest 'what clients may not say' => sub {
	my @forged = map { ($_ => 'f' x 64) } qw(X-Body-Hash x-path-hash X-Url-Hash X-Original-Host);
	my $r = http('POST', $hashd->url . '/v1/embeddings', [
		Host => 'api.example.test', @forged, Connection => 'keep-alive, X-Private', 'X-Private' => 'p', TE => 'trailers',
		'Keep-Alive' => '5', 'Proxy-Authorization' => 'q', Upgrade => 'h2c', 'X-Kept' => 'k', Authorization => 'Bearer b',
	], 'body');
	my %h;
	push @{ $h{ lc $_->[0] } }, $_->[1] for @{ account($r)->{headers} };
	is_deeply $h{'x-original-host'}, ['api.example.test'], 'x-original-host is the Host that the client used';
	is_deeply $h{host}, ['api.example.test'], 'Host';
	is_deeply $h{'x-kept'}, ['k'], 'other fields pass';
	is_deeply $h{authorization}, ['Bearer b'], 'credentials pass';
	is $h{$_}, undef, "$_ does not" for qw(x-body-hash x-path-hash x-url-hash connection x-private te keep-alive
		proxy-authorization upgrade content-length);
	is account($r)->{body_hash}, sha256_hex('body'), 'the hash is ours';
	$r = EG::HTTP->new($hashd->url)->request('GET', '/x', [ Connection => 'X-One', Connection => 'X-Two', 'X-One' => 1, 'X-Two' => 2 ]);
	is scalar(grep { $_->[0] =~ /^x-(?:one|two)$/i } @{ account($r)->{headers} }), 0, 'several Connection fields';
};

subtest 'what else gatewayd hears' => sub {
	my $trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
	my $a = account(http('GET', $hashd->url . '/v1/models?a=b%20c', [ traceparent => $trace ]));
	is $a->{target}, '/v1/models?a=b%20c', 'the target as sent';
	is $a->{client}, '127.0.0.1', 'the client';
	like $a->{trace}, qr/^00-0af7651916cd43dd8448eb211c80319c-(?!b7ad6b7169203331)[0-9a-f]{16}-01$/, 'a child of the trace';
	is scalar(grep { lc $_->[0] eq 'traceparent' } @{ $a->{headers} }), 0, 'not as a header too';
	like account(http('GET', $hashd->url . '/x'))->{trace}, qr/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/, 'or a new one';
};

subtest 'the answer' => sub {
	$gatewayd->mode(status => 418, body => 'teapot', times => 1, headers => [
		[ 'X-Cache-Hits', '1/2' ], [ 'X-Two', 'a' ], [ 'X-Two', 'b' ], [ 'Surrogate-Key', 'secret tag' ],
		[ 'Surrogate-Control', 'max-age=1' ], [ 'Connection', 'close' ], [ 'Transfer-Encoding', 'chunked' ],
		[ 'Content-Length', '3' ], [ 'X-Body-Hash', 'wrong' ], [ 'Keep-Alive', 'x' ],
	]);
	my $c = EG::HTTP->new($hashd->url);
	my $r = $c->request('POST', '/v1/embeddings', [], 'b');
	is $r->{status}, 418, 'status';
	is $r->{body}, 'teapot', 'body';
	is $r->{headers}{'x-cache-hits'}, '1/2', 'headers';
	is $r->{headers}{'x-two'}, 'a, b', 'repeated ones';
	is $r->{headers}{'x-body-hash'}, sha256_hex('b'), 'our hash, once';
	is $r->{headers}{$_}, undef, "no $_" for qw(surrogate-key surrogate-control keep-alive connection);
	is $c->request('GET', '/x')->{status}, 200, 'keep-alive';
	for my $n (0, 1, 16384, 16385, 1_000_000, 9_000_000) {
		for my $unknown (0, 1) {
			$gatewayd->mode(body_bytes => $n, unknown_length => $unknown ? \1 : \0, chunked => $unknown ? \1 : \0, times => 1);
			$r = $c->request('GET', '/x');
			my $expected = substr join('', map { chr } 0 .. 250) x (1 + $n / 251), 0, $n;
			ok $r->{body} eq $expected, "$n bytes, length " . ($unknown ? 'unknown' : 'known');
			is defined $r->{headers}{'content-length'}, !$unknown, 'framing';
		}
	}
	$gatewayd->mode(body_bytes => 100, times => 1);
	$r = $c->request('HEAD', '/x');
	is $r->{headers}{'content-length'}, 100, 'HEAD tells the length';
	is $c->request('GET', '/x')->{status}, 200, 'and has no body';
};

subtest 'answered without the body' => sub {
	$gatewayd->mode(ignore_body => \1, body => 'hit', times => 1);
	my $c = EG::HTTP->new($hashd->url);
	is $c->request('POST', '/v1/embeddings', [], 'z' x 1_000_000)->{body}, 'hit', 'a hit needs the hash alone';
	is $c->request('POST', '/v1/embeddings', [], 'z' x 1_000_000)->{status}, 200, 'and the next one the body';
};

subtest 'own paths' => sub {
	for my $path (qw(/healthz /readyz /metrics)) {
		is http('GET', $hashd->url . $path)->{status}, 200, $path;
		is http('DELETE', $hashd->url . $path)->{status}, 405, "$path: other methods";
	}
	like http('GET', $hashd->url . '/metrics')->{body}, qr/^hashd_requests_total\{status="200"\} \d+/m, 'metrics';
	my $r = http('PURGE', $hashd->url . '/v1/embeddings');
	is $r->{status}, 405, 'PURGE';
	is $r->{headers}{allow}, 'POST', 'with Allow';
	is http('PURGE', $hashd->url . '/v1/models')->{headers}{allow}, 'GET, HEAD', 'of its path';
	is http('PURGE', $hashd->url . '/nothing')->{headers}{allow}, '', 'where nothing is';
	is json_decode($r->{body})->{error}{type}, 'invalid_request_error', 'OpenAI-shaped';
	is scalar(grep { $_->{method} eq 'PURGE' } @{ $gatewayd->stats->{log} }), 0, 'and does not reach gatewayd';
};

subtest 'the local API' => sub {
	my $rpc = $hashd->rpc;
	is $rpc->call('hash', [ mp_bin($_) ])->[0], sha256_hex($_), length . ' bytes' for '', 'abc', 'x' x 16384;
	my ($result) = $rpc->call_with_body('hash', [ mp_bin(''), JSON::PP::true ], 'y' x 1_000_000);
	is $result->[0], sha256_hex('y' x 1_000_000), 'as chunks';

	my $ask = sub {
		my ($body, $chunked, @headers) = @_;
		return $rpc->call_with_body('request', [ 'POST', '/v1/embeddings?q', \@headers, mp_bin($chunked ? '' : $body),
			'f' x 64, 'me', '', $chunked ? JSON::PP::true : JSON::PP::false, length $body ], $chunked ? $body : undef, sub { $_[0][3] });
	};
	my ($r, $data) = $ask->('small', 0, [ 'X-Kept', 'k' ], [ 'X-Body-Hash', 'f' x 64 ], [ 'Host', 'h.test' ]);
	is $r->[0], 200, 'request';
	my $a = json_decode($r->[2]);
	is $a->{body_hash}, sha256_hex('small'), 'the hash is ours';
	is $a->{client}, 'me', 'client';
	my %h = map { lc $_->[0], $_->[1] } @{ $a->{headers} };
	is $h{'x-kept'}, 'k', 'fields pass';
	is $h{'x-body-hash'}, undef, 'forged ones do not';
	is $h{'x-original-host'}, 'h.test', 'x-original-host';
	($r, $data) = $ask->('L' x 700_000, 1);
	is json_decode($r->[2])->{body_sha}, sha256_hex('L' x 700_000), 'a large body';
	$gatewayd->mode(body_bytes => 2_000_000, times => 1);
	($r, $data) = $ask->('x', 0);
	is length $data, 2_000_000, 'a large answer';
	is sha256_hex($data), sha256_hex(substr join('', map { chr } 0 .. 250) x 8000, 0, 2_000_000), 'byte for byte';
	my ($none, $error) = $rpc->try_call('request', [ 'GET', 7 ]);
	is $error->[0], 1, 'bad params';
	like $error->[1], qr/target/, 'are named';
	is $rpc->call('ping')->[0], 'hashd', 'ping';
};

subtest 'flags' => sub {
	my $other = daemon('hashd', http => 1, env => { HASHD_PATH_HASH => 'true' }, args => [ '--enable-url-hash' ]);
	wait_for { http('GET', $other->url . '/x')->{status} == 200 } 'gatewayd to be up';
	my %h = map { lc $_->[0], $_->[1] } @{ account(http('GET', $other->url . '/v1/models?x=1', [ Host => 'h.test' ]))->{headers} };
	is $h{'x-path-hash'}, sha256_hex('/v1/models'), 'path hash';
	is $h{'x-url-hash'}, sha256_hex('h.test/v1/models?x=1'), 'URL hash';
};

subtest 'the access log' => sub {
	http('POST', $hashd->url . '/v1/embeddings', [ 'User-Agent' => 'ua/1', 'X-Forwarded-For' => '192.0.2.1' ], 'logged');
	my ($line) = wait_for { [ grep { ($_->{body_hash} // '') eq sha256_hex('logged') } $hashd->log_lines ]->[0] } 'the line';
	is $line->{status}, 200, 'status';
	is $line->{method}, 'POST', 'method';
	is $line->{bytes_in}, 6, 'bytes in';
	ok $line->{bytes_out} > 0 && $line->{duration_us} > 0, 'bytes out, duration';
	is $line->{user_agent}, 'ua/1', 'user agent';
	is $line->{x_forwarded_for}, '192.0.2.1', 'x-forwarded-for';
	is $line->{cache}, 'MISS', 'X-Cache';
	is $line->{backend}, 'gatewayd.0', 'who answered';
	like $line->{traceid}, qr/^[0-9a-f]{32}$/, 'trace id';
	is scalar(grep { ($_->{target} // '') eq '/healthz' && $_->{status} == 200 } $hashd->log_lines), 0, 'no probes';
};

done_testing;
