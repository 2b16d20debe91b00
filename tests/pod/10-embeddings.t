#!/usr/bin/env perl

# One text, embedded once: through hashd, two gatewayds and the store, over restarts.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;
use Digest::SHA qw(sha256_hex);
use MIME::Base64 qw(decode_base64);

my $pod = EG::Pod->new;
my $openai = $pod->openai;
my @key = (Authorization => 'Bearer sk-pod');

sub post { my ($body) = @_; return http_json($pod->url . '/v1/embeddings', $body, \@key) }
sub vectors
{
	my ($r) = @_;
	return map { my $e = $_->{embedding}; ref $e ? $e : [ unpack 'f<*', decode_base64($e) ] } @{ $r->{json}{data} };
}

subtest 'a miss, then hits' => sub {
	my $miss = $pod->embed('hello wide world');
	is $miss->{status}, 200, 'answered';
	is $miss->{headers}{'x-cache'}, 'MISS', 'MISS';
	my $hit = $pod->embed('hello wide world');
	is $hit->{headers}{'x-cache'}, 'HIT', 'HIT';
	is $hit->{body}, $miss->{body}, 'the same bytes';
	like $hit->{headers}{age}, qr/^\d+$/, 'Age';
	is $hit->{headers}{'x-body-hash'},
		sha256_hex('{"input":"hello wide world","model":"text-embedding-3-small"}'), 'X-Body-Hash';
	is $openai->calls, 1, 'bought once';
	my $direct = http_json($openai->base . '/embeddings',
		{ model => 'text-embedding-3-small', input => 'hello wide world' }, \@key);
	is_deeply [ vectors($hit) ], [ vectors($direct) ], 'exactly what the provider says';
	is_deeply $hit->{json}{usage}, $direct->{json}{usage}, 'usage too';
};

subtest 'the same request, written differently' => sub {
	$openai->reset;
	for my $body (
		'{"model":"text-embedding-3-small","input":"hello wide world"}', '{ "input" : "hello wide world", "model" : "text-embedding-3-small" }',
		'{"input":"h\u0065llo\u0020wide world","model":"text-embedding-3-small"}', "{\n\t\"model\": \"text-embedding-3-small\",\n\t\"input\": [\"hello wide world\"]\n}\n",
		'{"input":"hello wide world","model":"text-embedding-3-small","user":"somebody"}',
		'{"input":"hello wide world","model":"text-embedding-3-small","encoding_format":"base64"}',
	) {
		my $r = post($body);
		is $r->{headers}{'x-cache'}, 'HIT', $body =~ s/\s+/ /gr;
	}
	is $openai->calls, 0, 'nothing was bought';
};

subtest 'arrays' => sub {
	$openai->reset;
	my $r = $pod->embed([ 'alpha', 'hello wide world', 'alpha' ]);
	is $r->{headers}{'x-cache'}, 'PARTIAL', 'one was there: PARTIAL';
	is_deeply $openai->stats->{log}[0]{input}, [ 'alpha' ], 'the other one is bought, once';
	my @v = vectors($r);
	is_deeply $v[0], $v[2], 'the repeated text';
	is_deeply [ map { $_->{index} } @{ $r->{json}{data} } ], [ 0, 1, 2 ], 'order';
	is $r->{json}{usage}{prompt_tokens}, 2 + 4 + 2, 'usage is what the elements cost';
	my $alone = $pod->embed('alpha');
	is $alone->{headers}{'x-cache'}, 'HIT', 'a text from an array is a HIT alone';
	is_deeply [ vectors($alone) ], [ $v[0] ], 'with the same vector';
	is $alone->{json}{usage}{prompt_tokens}, 2, 'and its own usage';
	is_deeply [ vectors($pod->embed([ 'alpha', 'hello wide world', 'alpha' ], encoding_format => 'base64')) ], \@v, 'float and base64 agree';
	is $openai->calls, 1, 'one purchase in all';
};

subtest 'a large batch' => sub {
	$openai->reset;
	my @texts = map { "text number $_" } 1 .. 2000;
	my $r = $pod->embed(\@texts, dimensions => 64, encoding_format => 'base64');
	is scalar @{ $r->{json}{data} }, 2000, '2,000 texts';
	is $r->{json}{usage}{prompt_tokens}, 4 * 2000, 'usage';
	is $pod->embed($texts[1234], dimensions => 64, encoding_format => 'base64')->{json}{data}[0]{embedding}, $r->{json}{data}[1234]{embedding}, 'any of them alone';
	is $openai->stats->{inputs}, 2000, 'bought once each';
};

subtest 'the store outlives the pod' => sub {
	wait_for { (() = glob test_path('cache') . '/embeddings/*.json.gz') > 2000 } 'objects to be stored';
	my $before = $pod->embed('hello wide world');
	$openai->reset;
	$pod->restart;
	my $r = $pod->embed('hello wide world');
	is $r->{headers}{'x-cache'}, 'HIT', 'HIT after a restart';
	is_deeply [ vectors($r) ], [ vectors($before) ], 'with the same vector';
	is_deeply $r->{json}{usage}, $before->{json}{usage}, 'and usage';
	is $pod->embed([ 'alpha', 'text number 7' ])->{headers}{'x-cache'}, 'PARTIAL', 'other dimensions are another vector';
	is $openai->calls, 1, 'which is bought';
};

subtest 'refusals' => sub {
	$openai->reset;
	my @bad = (
		[ 'bad JSON', '{"model":', 400 ], [ 'no input', '{"model":"text-embedding-3-small"}', 400 ],
		[ 'empty input', '{"model":"text-embedding-3-small","input":""}', 400 ], [ 'an array', '[]', 400 ],
		[ 'a bad type', '{"model":"text-embedding-3-small","input":{"a":1}}', 400 ], [ 'no body', '', 400 ],
	);
	for (@bad) {
		my $r = post($_->[1]);
		is $r->{status}, $_->[2], $_->[0];
		is ref $r->{json}{error}, 'HASH', 'OpenAI-shaped';
	}
	is $pod->embed('x', headers => [])->{status}, 401, 'no key';
	is http('GET', $pod->url . '/nothing', \@key)->{status}, 404, 'unknown path';
	my $r = http('GET', $pod->url . '/v1/embeddings', \@key);
	is $r->{status}, 405, 'GET';
	like $r->{headers}{allow}, qr/POST/, 'with Allow';
	is $openai->calls, 0, 'nothing reached the provider';
	is $pod->embed('new', headers => [ Authorization => 'Bearer sk-bad' ])->{status}, 401, 'a key that the provider refuses';
};

done_testing;
