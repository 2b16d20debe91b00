#!/usr/bin/env perl

# GET /v1/models: the provider's list for the caller's key, and its errors.

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
	is $r->{headers}{'x-cache'}, 'PASS', 'passed on';
	is join(' ', map { $_->{id} } @{ $r->{json}{data} }), 'text-embedding-3-small fake-own', 'the provider\'s list';
	$openai->mode(models => ['fake-new']);
	is models($path, @KEY)->{json}{data}[0]{id}, 'fake-new', 'as it is now';
}

my $r = models('/v1/models', Authorization => 'Bearer sk-bad');
is $r->{status}, 401, 'the provider\'s refusal';
is $r->{json}{error}{code}, 'invalid_api_key', 'in its words';
is models('/v1/models')->{status}, 401, 'no key';
is http('POST', $d->url . '/v1/models', [@KEY], "{}")->{status}, 405, 'only GET';
is models('/v1/models/x', @KEY)->{status}, 404, 'nothing below';

$openai->mode(fault => 'status', status => 500);
is models('/v1/models', @KEY)->{status}, 500, 'a failure that stays';
$openai->mode(fault => 'status', status => 429, headers => { 'Retry-After' => 40 });
$r = models('/v1/models', Authorization => 'Bearer sk-busy');
is $r->{status}, 429, 'too many';
is $r->{headers}{'retry-after'}, 40, 'Retry-After';
$openai->mode(fault => 'status', status => 200, body => '');
$r = models('/v1/models', @KEY);
is $r->{status}, 502, 'an empty list';
is $r->{json}{error}{code}, 'provider_broken_answer', 'says why';
$openai->mode(fault => 'hang');
$r = models('/v1/models', @KEY);
is $r->{status}, 504, 'no answer in time';
is $r->{json}{error}{code}, 'provider_timeout', 'says why';
$openai->mode;
is models('/v1/models', @KEY)->{status}, 200, 'well again';

# The caller leaves while the provider thinks.
$openai->mode(fault => 'hang');
$d->url =~ m{//([^/]+)};
my $socket = IO::Socket::INET->new($1) // die;
print $socket "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-good\r\n\r\n";
$socket->flush;
close $socket;
$openai->mode;
is models('/v1/models', @KEY)->{status}, 200, 'nobody else minds';

my $mock = daemon('gatewayd', http => 1, rpc => 'mock.sock', env => { PROVIDER => 'mock', STORE => 'none' });
$r = http('GET', $mock->url . '/v1/models');
is $r->{status}, 200, 'the mock has a list too';
is join(' ', map { $_->{id} } @{ json_decode($r->{body})->{data} }), 'text-embedding-3-small text-embedding-3-large text-embedding-ada-002', 'of its models';

done_testing;
