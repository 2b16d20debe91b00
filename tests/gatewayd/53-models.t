#!/usr/bin/env perl

# GET and HEAD /v1/models: the provider's list for the caller's key, kept for it; its errors; what is not kept.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $openai = fake_openai();
my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock',
	env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', MAX_RETRIES => 1, OPENAI_TIMEOUT => '1s' });

sub models
{
	my ($path, @headers) = @_;
	my $r = http('GET', $d->url . $path, [@headers]);
	$r->{json} = eval { json_decode($r->{body}) };
	return $r;
}
my @KEY = (Authorization => 'Bearer sk-good');

for my $path ('/v1/models', '/openai/v1/models') {
	$openai->mode(models => [ 'text-embedding-3-small', 'fake-own' ]);
	my $r = models($path, @KEY);
	is $r->{status}, 200, $path;
	is $r->{headers}{'content-type'}, 'application/json', 'its type';
	is $r->{headers}{'x-cache'}, 'MISS', 'asked for';
	is join(' ', map { $_->{id} } @{ $r->{json}{data} }), 'text-embedding-3-small fake-own', 'the provider\'s list';
	$openai->mode(models => ['fake-new']);
	$r = models($path, @KEY);
	is "$r->{headers}{'x-cache'} $r->{json}{data}[0]{id}", 'HIT text-embedding-3-small', 'kept';
	like $r->{headers}{age}, qr/^\d+$/, 'its age';
	my $head = http('HEAD', $d->url . $path, [@KEY]);
	is "$head->{status} $head->{headers}{'x-cache'} [$head->{body}]", '200 HIT []', 'HEAD is answered from it';
	$r = models("$path?fresh", @KEY);
	is "$r->{headers}{'x-cache'} $r->{json}{data}[0]{id}", 'MISS fake-new', 'another query is another object';
	$r = models($path, Authorization => 'Bearer sk-other');
	is "$r->{headers}{'x-cache'} $r->{json}{data}[0]{id}", 'MISS fake-new', 'so is another key';
}

my $r = models('/v1/models', Authorization => 'Bearer sk-bad');
is $r->{status}, 401, 'the provider\'s refusal';
is $r->{json}{error}{code}, 'invalid_api_key', 'in its words';
is models('/v1/models')->{status}, 401, 'no key';
is http('POST', $d->url . '/v1/models', [@KEY], "{}")->{status}, 405, 'only GET';
is models('/v1/models/x', @KEY)->{status}, 404, 'nothing below';

$openai->mode(fault => 'status', status => 500);
is models('/v1/models?1', @KEY)->{status}, 500, 'a failure that stays';
$openai->mode(fault => 'status', status => 429, headers => { 'Retry-After' => 40 });
$r = models('/v1/models', Authorization => 'Bearer sk-busy');
is $r->{status}, 429, 'too many';
is $r->{headers}{'retry-after'}, 40, 'Retry-After';
$openai->mode(fault => 'status', status => 200, body => '');
$r = models('/v1/models?2', @KEY);
is $r->{status}, 502, 'an empty list';
is $r->{json}{error}{code}, 'provider_broken_answer', 'says why';
$openai->mode(fault => 'hang');
$r = models('/v1/models?3', @KEY);
is $r->{status}, 504, 'no answer in time';
is $r->{json}{error}{code}, 'provider_timeout', 'says why';
$openai->mode;
is models('/v1/models?4', @KEY)->{status}, 200, 'well again';

# The caller leaves while the provider thinks.
$openai->mode(fault => 'hang');
$d->url =~ m{//([^/]+)};
my $socket = IO::Socket::INET->new($1) // die;
print $socket "GET /v1/models?gone HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-good\r\n\r\n";
$socket->flush;
close $socket;
$openai->mode;
is models('/v1/models?5', @KEY)->{status}, 200, 'nobody else minds';

subtest 'what is not kept' => sub {
	my $n = 0;
	for my $headers ({ 'Set-Cookie' => 'a=b' }, { 'Cache-Control' => 'private' }, { 'Cache-Control' => 'max-age=60, No-Cache="x, y"' },
		{ 'Cache-Control' => 'no-store' }, { 'Surrogate-Control' => 'max-age=1, no-store' }, { Vary => 'Accept, *' }, { 'Surrogate-Key' => 'x' x 300 }) {
		my ($name, $path) = (join(': ', %$headers), '/v1/models?not-kept-' . $n++);
		$openai->mode(models => ['fake-a'], headers => $headers);
		is models($path, @KEY)->{headers}{'x-cache'}, 'MISS', substr $name, 0, 60;
		$openai->mode(models => ['fake-b']);
		my $again = models($path, @KEY);
		is "$again->{headers}{'x-cache'} $again->{json}{data}[0]{id}", 'PASS fake-b', 'remembered as not to be kept';
		is $again->{headers}{ lc((keys %$headers)[0]) }, undef, 'nor shown' if $name =~ /^S/;
	}
	for my $headers ({ 'Cache-Control' => 'max-age=1' }, { Vary => 'Accept' }, { 'Cache-Control' => 'x="private, no-store"' }) {
		my $path = '/v1/models?kept-' . $n++;
		$openai->mode(models => ['fake-a'], headers => $headers);
		models($path, @KEY);
		is models($path, @KEY)->{headers}{'x-cache'}, 'HIT', 'kept: ' . join ': ', %$headers;
	}
	$openai->mode;
	for (1, 2) { is models('/v1/models?cookie', @KEY, Cookie => 'a=b')->{headers}{'x-cache'}, 'PASS', 'a request with a cookie' }
	is models('/v1/models?cookie', @KEY)->{headers}{'x-cache'}, 'MISS', 'leaves nothing';
	for (1, 2) { is models('/v1/models?control', @KEY, 'Cache-Control' => 'no-cache')->{headers}{'x-cache'}, $_ == 1 ? 'MISS' : 'HIT', 'a request\'s wishes are its own' }
	my $heeds = daemon('gatewayd', http => 1, rpc => 'heeds.sock', env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', CACHE_REQUEST_CONTROL => 'on' });
	my $e = sub { http_json($heeds->url . '/v1/embeddings', { input => 'x', model => 'text-embedding-3-small', dimensions => 2 }, [ @KEY, @_ ])->{headers}{'x-cache'} };
	my $calls = $openai->calls;
	is join(' ', $e->('Cache-Control' => 'no-store'), $e->(), $e->(), $e->('Cache-Control' => 'no-cache'), $e->('Cache-Control' => 'max-age=0, no-store'), $e->(),
		$e->('Cache-Control' => 'max-age=0', 'Cache-Control' => 'no-store')), 'PASS MISS HIT MISS PASS HIT PASS', 'embeddings alike';
	is $openai->calls, $calls + 5, 'bought as often';
	my $x = sub { http('GET', $heeds->url . '/v1/models', [ @KEY, @_ ])->{headers}{'x-cache'} };
	is join(' ', $x->(), $x->(), $x->('Cache-Control' => 'no-cache'), $x->('Cache-Control' => 'no-store'), $x->(),
		$x->('Cache-Control' => 'max-age=0', 'Cache-Control' => 'no-cache')), 'MISS HIT MISS PASS HIT MISS', 'unless they are to hold';
};

subtest 'one call for all' => sub {
	$openai->mode(hold => JSON::PP::true);
	my @c = map { EG::HTTP->new($d->url) } 1 .. 5;
	$_->send(EG::HTTP::format_request('GET', '/v1/models?all', [@KEY])) for @c;
	$openai->wait(held => 1);
	$openai->release;
	is join(' ', sort map { $_->response->{headers}{'x-cache'} } @c), 'COALESCED COALESCED COALESCED COALESCED MISS', 'coalesced';
	is models('/v1/models?all', @KEY)->{headers}{'x-cache'}, 'HIT', 'and kept';
};

my $mock = daemon('gatewayd', http => 1, rpc => 'mock.sock', env => { PROVIDER => 'mock', STORE => 'none' });
$r = http('GET', $mock->url . '/v1/models');
is $r->{status}, 200, 'the mock has a list too';
is join(' ', map { $_->{id} } @{ json_decode($r->{body})->{data} }), 'text-embedding-3-small text-embedding-3-large text-embedding-ada-002', 'of its models';

done_testing;
