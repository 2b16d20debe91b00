#!/usr/bin/env perl

# Every kind of bad request gets its error in OpenAI's shape, and buys nothing.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Time::HiRes ();

my $openai = fake_openai();
my $d = daemon('gatewayd', http => 1, env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', MAX_BODY => '100KB' });
my @KEY = (Authorization => 'Bearer sk-good');
my @JSON = (@KEY, 'Content-Type' => 'application/json');
my $GOOD = '{"input":"a","model":"text-embedding-3-small"}';

# name, status, code, param, request (method, path, headers, body), further headers of the answer
for (
	[ 'bad JSON', 400, 'invalid_json', undef, [ POST => '/v1/embeddings', \@JSON, '{"input":' ] ],
	[ 'NaN', 400, 'invalid_json', undef, [ POST => '/v1/embeddings', \@JSON, '{"input":NaN,"model":"m"}' ] ],
	[ 'no object', 400, undef, undef, [ POST => '/v1/embeddings', \@JSON, '["a"]' ] ],
	[ 'no body', 400, undef, undef, [ POST => '/v1/embeddings', \@JSON, '' ] ],
	[ 'no input', 400, undef, 'input', [ POST => '/v1/embeddings', \@JSON, '{"model":"m"}' ] ],
	[ 'no model', 400, undef, 'model', [ POST => '/v1/embeddings', \@JSON, '{"input":"a"}' ] ],
	[ 'empty input', 400, undef, 'input', [ POST => '/v1/embeddings', \@JSON, '{"input":"","model":"m"}' ] ],
	[ 'empty list', 400, undef, 'input', [ POST => '/v1/embeddings', \@JSON, '{"input":[],"model":"m"}' ] ],
	[ 'input of a bad type', 400, undef, 'input', [ POST => '/v1/embeddings', \@JSON, '{"input":{"a":1},"model":"m"}' ] ],
	[ 'mixed list', 400, undef, 'input', [ POST => '/v1/embeddings', \@JSON, '{"input":["a",[1]],"model":"m"}' ] ],
	[ 'bad format', 400, undef, 'encoding_format', [ POST => '/v1/embeddings', \@JSON, '{"input":"a","model":"m","encoding_format":"x"}' ] ],
	[ 'bad dimensions', 400, undef, 'dimensions', [ POST => '/v1/embeddings', \@JSON, '{"input":"a","model":"m","dimensions":-1}' ] ],
	[ 'no key', 401, 'missing_api_key', undef, [ POST => '/v1/embeddings', [ 'Content-Type' => 'application/json' ], $GOOD ] ],
	(map { [ "an empty key '$_'", 401, 'missing_api_key', undef, [ POST => '/v1/embeddings', [ 'Content-Type' => 'application/json', Authorization => $_ ], $GOOD ] ] }
		'Bearer', 'Bearer ', 'bearer  '),
	[ 'unknown path', 404, 'unknown_url', undef, [ POST => '/v1/embedding', \@JSON, $GOOD ] ],
	[ 'root', 404, 'unknown_url', undef, [ GET => '/', [], '' ] ],
	[ 'bad method', 405, 'method_not_allowed', undef, [ GET => '/v1/embeddings', \@KEY, '' ], allow => 'POST' ],
	[ 'bad method on the other path', 405, 'method_not_allowed', undef, [ DELETE => '/openai/v1/embeddings', \@KEY, '' ], allow => 'POST' ],
	[ 'not JSON by type', 415, 'unsupported_media_type', undef,
		[ POST => '/v1/embeddings', [ @KEY, 'Content-Type' => 'text/plain' ], $GOOD ] ],
	[ 'compressed body', 415, 'unsupported_content_encoding', undef,
		[ POST => '/v1/embeddings', [ @JSON, 'Content-Encoding' => 'gzip' ], $GOOD ], 'accept-encoding' => 'identity' ],
	[ 'a method that nobody knows', 501, 'not_implemented', undef, [ FROB => '/v1/embeddings', \@JSON, $GOOD ] ],
	[ 'the same where nothing is', 501, 'not_implemented', undef, [ get => '/', \@KEY, '' ] ],
	[ 'a bad method on an own path', 405, 'method_not_allowed', undef, [ POST => '/healthz', \@KEY, '' ], allow => 'GET, HEAD' ],
	[ 'over the body limit', 413, undef, undef, [ POST => '/v1/embeddings', \@JSON, '{"input":"' . 'a' x 200_000 . '"}' ] ],
	[ 'over the header limit', 431, undef, undef, [ POST => '/v1/embeddings', [ @JSON, 'X-Long' => 'a' x 200_000 ], $GOOD ] ],
) {
	my ($name, $status, $code, $param, $request, %headers) = @$_;
	subtest $name => sub {
		my ($method, $path, $h, $body) = @$request;
		my $r = http($method, $d->url . $path, $h, length $body ? $body : undef);
		is $r->{status}, $status, 'status';
		is $r->{headers}{'content-type'}, 'application/json', 'type';
		my $error = eval { json_decode($r->{body})->{error} };
		is ref $error, 'HASH', 'OpenAI shape' or return diag $r->{body};
		is_deeply [ sort keys %$error ], [qw(code message param type)], 'its members';
		like $error->{type}, qr/^(?:invalid_request_error|authentication_error)$/, 'type of error';
		cmp_ok length $error->{message}, '>', 10, "message: $error->{message}";
		is $error->{code}, $code, 'code' if defined $code;
		is $error->{param}, $param, 'param' if defined $param;
		is $r->{headers}{ lc $_ }, $headers{$_}, $_ for keys %headers;
	};
}

{
	my $r = EG::HTTP->new($d->url)->request('OPTIONS', '*');
	is $r->{status}, 204, 'OPTIONS *';
	like $r->{headers}{allow}, qr/\bPOST\b/, 'with Allow';
}
is $openai->calls, 0, 'nothing was bought';

subtest 'a type with parameters, or none, is fine' => sub {
	is http('POST', $d->url . '/v1/embeddings', [ @KEY, 'Content-Type' => 'Application/JSON; charset=utf-8' ], $GOOD)->{status}, 200,
		'parameters';
	is http('POST', $d->url . '/v1/embeddings', \@KEY, $GOOD)->{status}, 200, 'none';
};

subtest 'a key is needed for a hit too' => sub {
	is http('POST', $d->url . '/v1/embeddings', [ 'Content-Type' => 'application/json' ], $GOOD)->{status}, 401, 'refused';
};

subtest 'RPC peers that say what HTTP cannot carry' => sub {
	my $g = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock',
		env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', CIRCUIT_BREAKER_THRESHOLD => 2 });
	my $h = daemon('hashd', http => 1, env => { HASHD_BACKENDS => $g->rpc_path });
	for (
		[ 'a key', 'headers[1].value', [ 'POST', '/v1/embeddings', [ [ host => 'x' ], [ Authorization => "Bearer x\r\nX-Evil: 1" ] ] ] ],
		[ 'a name', 'headers[0].name', [ 'POST', '/v1/embeddings', [ [ "x\nEvil", 'a' ] ] ] ],
		[ 'a method', 'method', [ "POST\r\n", '/v1/embeddings', [] ] ],
		[ 'a target', 'target', [ 'POST', "/v1/embeddings\r\nX: y", [] ] ],
	) {
		my ($name, $field, $params) = @$_;
		for my $d ($g, $h) {
			for (1 .. 3) {
				my (undef, $error) = $d->rpc->try_call('request', [ @$params, mp_bin($GOOD) ]);
				is $error->[0], 1, "$name: bad params";
				like $error->[1], qr/^\Q$field\E: not a /, 'by name';
			}
		}
	}
	is http('POST', $g->url . '/v1/embeddings', \@JSON, $GOOD)->{status}, 200, 'the provider is asked as before';
};

subtest 'a client that shuts its side down is answered' => sub {
	for my $text ('for a purchase', 'for a hit', 'for a hit') {
		my $c = EG::HTTP->new($d->url);
		$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', \@JSON, '{"input":"shut","model":"text-embedding-3-small"}'));
		shutdown $c->sock, 1;
		is $c->response->{status}, 200, $text;
	}
};

subtest 'clients that keep the body budget to themselves' => sub {
	my $o = daemon('gatewayd', http => 1, env => { PROVIDER => 'mock', STORE => 'none', MAX_BODY => '4MiB', GATEWAYD_BODY_BUDGET => '8MiB' });
	my $head = "POST /v1/embeddings HTTP/1.1\r\nHost: h\r\nContent-Length: " . (4 << 20) . "\r\n\r\n";
	my @c = map { [ EG::HTTP->new($o->url), $head . ' ' x ((4 << 20) - 1) ] } 1 .. 6;
	my $idle = 0;
	wait_for {    # until a tenth of a second long nothing was taken: three wait
		my $moved = 0;
		for my $c (@c) {
			my $n = length $c->[1] ? syswrite $c->[0]->sock, $c->[1], 1 << 18 : 0;
			substr($c->[1], 0, $n, '') and $moved = 1 if $n;
		}
		$idle = $moved ? 0 : $idle + 1;
		$idle > 10;
	} 'the budget to be full';
	my $t = Time::HiRes::time();
	is http('POST', $o->url . '/v1/embeddings', \@JSON, $GOOD)->{status}, 200, 'a small body is answered';
	cmp_ok Time::HiRes::time() - $t, '<', instrumented() ? 10 : 1, 'at once';
	is http('POST', $o->url . '/v1/embeddings', \@JSON, ' ' x (3 << 20) . $GOOD)->{status}, 200, 'a large one gets its turn';
	is $c[0][0]->response->{status}, 408, 'who sends no more is told';
	$_->[0]->close for @c;
};

subtest 'every request that is counted has a duration' => sub {
	$openai->mode(latency_ms => 1500);
	my $gone = EG::HTTP->new($d->url);
	$gone->send(EG::HTTP::format_request('POST', '/v1/embeddings', \@JSON, '{"input":"left","model":"text-embedding-3-small"}'));
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_flights 1$/m } 'the text to be on its way';
	$gone->reset;
	http($_->[0], $d->url . $_->[1], \@KEY) for [ GET => '/nowhere' ], [ DELETE => '/v1/embeddings' ], [ OPTIONS => '/v1/embeddings' ];
	$openai->mode;
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_requests_total\{result="gone",status="499"\} 1$/m } 'the client to be missed';
	my $page = http('GET', $d->url . '/metrics')->{body};
	my (%requests, %durations);
	$requests{$1} += $2 while $page =~ /^gatewayd_requests_total\{result="(\w+)"[^}]*\} (\d+)$/mg;
	$durations{$1} += $2 while $page =~ /^gatewayd_request_duration_seconds_count\{result="(\w+)"\} ([1-9]\d*)$/mg;
	delete @requests{ grep { !$requests{$_} } keys %requests };
	is_deeply \%durations, \%requests, join ', ', map { "$_ $requests{$_}" } sort keys %requests;
};

unlike $d->log, qr/sk-good|"a"/, 'no secret and no text in the log';

done_testing;
