#!/usr/bin/env perl

# gatewayd alone, over HTTP, in front of a fake OpenAI: what is bought, what is served, and how it looks.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);
use MIME::Base64 qw(decode_base64);

my $openai = fake_openai();
my $d = daemon('gatewayd', http => 1, env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => test_path('cache') });
my $M = 'text-embedding-3-small';
my @KEY = (Authorization => 'Bearer sk-good');

sub ask
{
	my ($body, %o) = @_;
	return http_json($d->url . ($o{path} // '/v1/embeddings'), $body, [ @KEY, @{ $o{headers} // [] } ]);
}
sub floats { return map { $_->{embedding} } @{ $_[0]{json}{data} } }
sub vectors { return map { [ unpack 'f<*', decode_base64($_->{embedding}) ] } @{ $_[0]{json}{data} } }
sub as_float32 { return [ unpack 'f<*', pack 'f<*', @{ $_[0] } ] }
sub metric { return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$_[0]\E (\S+)$/m ? $1 : undef }

subtest 'a miss, then hits' => sub {
	my $body = json_encode({ input => 'one two three', model => $M, dimensions => 8 });
	my $miss = ask($body);
	is $miss->{status}, 200, 'bought';
	is $miss->{headers}{'x-cache'}, 'MISS', 'and says so';
	is $miss->{headers}{'x-body-hash'}, sha256_hex($body), 'hash of the body';
	is $miss->{headers}{'content-type'}, 'application/json', 'type';
	ok !exists $miss->{headers}{age}, 'no age yet';
	is_deeply $miss->{json}{usage}, { prompt_tokens => 4, total_tokens => 4 }, 'usage is the provider\'s';
	is $miss->{json}{object}, 'list', 'shape';
	is $miss->{json}{data}[0]{object}, 'embedding', 'shape of the element';
	is scalar @{ $miss->{json}{data}[0]{embedding} }, 8, 'dimensions';
	my $hit = ask($body);
	is $hit->{headers}{'x-cache'}, 'HIT', 'the same bytes hit';
	like $hit->{headers}{age}, qr/^\d+$/, 'with an age';
	is $hit->{body}, $miss->{body}, 'and the same answer';
	is ask($body, path => '/openai/v1/embeddings')->{headers}{'x-cache'}, 'HIT', 'the other path too';
	is $openai->calls, 1, 'one purchase in all';
};

subtest 'spelling' => sub {
	my $before = $openai->calls;
	for (
		'{"dimensions":8,"model":"text-embedding-3-small","input":"one two three"}',
		"{\n \"input\" : \"one\\u0020two three\" ,\t\"model\":\"text-embedding-3-small\",\"dimensions\": 8}",
		'{"input":"one two three","model":"text-embedding-3-small","dimensions":8,"user":"somebody"}',
		'{"input":["one two three"],"model":"text-embedding-3-small","dimensions":8}',
	) {
		my $r = ask($_);
		is $r->{headers}{'x-cache'}, 'HIT', $_;
		is $r->{json}{usage}{prompt_tokens}, 4, 'usage';
	}
	is $openai->calls, $before, 'nothing bought';
};

subtest 'formats are views of one vector' => sub {
	my $before = $openai->calls;
	my $float = ask({ input => 'views', model => $M });
	my $base64 = ask({ input => 'views', model => $M, encoding_format => 'base64' });
	is $base64->{headers}{'x-cache'}, 'HIT', 'the other format is a hit';
	is $openai->calls, $before + 1, 'bought once';
	is_deeply as_float32((floats($float))[0]), (vectors($base64))[0], 'equal vectors';
	is_deeply $openai->stats->{log}[-1]{encoding_format}, 'base64', 'asked of the provider as base64';
	my $other = ask({ input => 'views 2', model => $M, encoding_format => 'base64' });
	is_deeply as_float32((floats(ask({ input => 'views 2', model => $M })))[0]), (vectors($other))[0], 'base64 first';
};

subtest 'lists' => sub {
	my $before = $openai->calls;
	my $r = ask({ input => [ 'a b', 'c', 'a b' ], model => $M });
	is $r->{headers}{'x-cache'}, 'MISS', 'all new';
	is $r->{headers}{'x-cache-hits'}, '0/3', 'none of three';
	is $openai->calls, $before + 1, 'one call';
	is_deeply [ sort @{ $openai->stats->{log}[-1]{input} } ], [ 'a b', 'c' ], 'the repeated text is sent once';
	is_deeply [ map { $_->{index} } @{ $r->{json}{data} } ], [ 0, 1, 2 ], 'in order';
	is_deeply $r->{json}{data}[0]{embedding}, $r->{json}{data}[2]{embedding}, 'the same text, the same vector';

	my $alone = ask({ input => 'a b', model => $M });
	is $alone->{headers}{'x-cache'}, 'HIT', 'a text of a list is a hit alone';
	is_deeply $alone->{json}{data}[0]{embedding}, $r->{json}{data}[0]{embedding}, 'with its vector';
	my ($c) = floats(ask({ input => 'c', model => $M }));
	is_deeply $c, $r->{json}{data}[1]{embedding}, 'each its own';
	my $tokens = $alone->{json}{usage}{prompt_tokens} + ask({ input => 'c', model => $M })->{json}{usage}{prompt_tokens};
	is $tokens, 5, 'the shares sum to what was paid';
	is $r->{json}{usage}{prompt_tokens}, $tokens + $alone->{json}{usage}{prompt_tokens}, 'usage counts places';

	$r = ask({ input => [ 'c', 'new one', 'a b' ], model => $M });
	is $r->{headers}{'x-cache'}, 'PARTIAL', 'some new';
	is $r->{headers}{'x-cache-hits'}, '2/3', 'two of three';
	is_deeply $openai->stats->{log}[-1]{input}, ['new one'], 'only that is bought';
	is_deeply $r->{json}{data}[0]{embedding}, $c, 'in its place';
	is ask({ input => [ 'c', 'new one', 'a b' ], model => $M })->{headers}{'x-cache-hits'}, '3/3', 'then all';
};

subtest 'token ids' => sub {
	my $single = ask({ input => [ 1, 2, 3 ], model => $M });
	is $single->{headers}{'x-cache'}, 'MISS', 'one element';
	is scalar @{ $single->{json}{data} }, 1, 'one vector';
	is $single->{json}{usage}{total_tokens}, 3, 'a token each';
	my $list = ask({ input => [ [ 1, 2, 3 ], [4] ], model => $M });
	is $list->{headers}{'x-cache-hits'}, '1/2', 'known in a list';
	is_deeply $list->{json}{data}[0]{embedding}, $single->{json}{data}[0]{embedding}, 'same vector';
};

subtest 'what makes another element' => sub {
	my $before = $openai->calls;
	ask({ input => 'same', model => $M });
	ask({ input => 'same', model => $M, dimensions => 4 });
	ask({ input => 'same', model => 'text-embedding-3-large' });
	ask({ input => 'same', model => $M, task => 'query' });
	is $openai->calls, $before + 4, 'model, dimensions, unknown parameters';
	is_deeply $openai->stats->{log}[-1]{headers}{'content-type'}, 'application/json', 'a proper request';
};

subtest 'large lists are streamed' => sub {
	my @texts = map { "text number $_ of many" } 1 .. 3000;
	my $before = $openai->calls;
	my $r = ask({ input => \@texts, model => $M, dimensions => 16, encoding_format => 'base64' });
	is $r->{status}, 200, 'answered';
	is $openai->calls, $before + 2, 'in calls of at most 2,048';
	is scalar @{ $r->{json}{data} }, 3000, 'all there';
	is $r->{headers}{'content-length'}, length $r->{body}, 'length known beforehand';
	is_deeply [ map { $_->{index} } @{ $r->{json}{data} } ], [ 0 .. 2999 ], 'in order';
	is $r->{json}{usage}{total_tokens}, 3000 * 6, 'usage sums exactly';
	my $again = ask({ input => [ reverse @texts ], model => $M, dimensions => 16 });
	is $again->{headers}{'x-cache-hits'}, '3000/3000', 'another order and format: all hits';
	is $again->{headers}{'transfer-encoding'}, 'chunked', 'number text has no length beforehand';
	is $openai->calls, $before + 2, 'nothing bought';
	my @a = vectors($r);
	my @b = map { as_float32($_) } floats($again);
	is_deeply \@b, [ reverse @a ], 'every vector in its place';
};

subtest 'gzip' => sub {
	my @accept = (headers => [ 'Accept-Encoding' => 'gzip, deflate' ]);
	my $plain = ask({ input => 'to be compressed', model => $M });
	is $plain->{headers}{'content-encoding'}, undef, 'plain at first';
	is $plain->{headers}{vary}, 'Accept-Encoding', 'with Vary';
	my $zipped = wait_for {
		my $r = ask({ input => 'to be compressed', model => $M }, @accept);
		($r->{headers}{'content-encoding'} // '') eq 'gzip' && $r;
	} 'a gzip form';
	require Compress::Zlib;
	is Compress::Zlib::memGunzip($zipped->{body}), $plain->{body}, 'the same content';
	is ask({ input => 'to be compressed', model => $M })->{body}, $plain->{body}, 'plain for those who do not ask';
};

subtest 'trace context' => sub {
	my $id = '0af7651916cd43dd8448eb211c80319c';
	ask({ input => 'traced', model => $M }, headers => [ Traceparent => "00-$id-b7ad6b7169203331-01" ]);
	like $openai->stats->{log}[-1]{headers}{traceparent}, qr/^00-$id-[0-9a-f]{16}-01$/, 'the provider sees the same trace';
	unlike $openai->stats->{log}[-1]{headers}{traceparent}, qr/b7ad6b7169203331/, 'and a span of our own';
};

subtest 'counters' => sub {
	is metric('gatewayd_elements_total{source="bought"}'), $openai->stats->{inputs}, 'bought';
	is metric('openai_tokens_used_total{model="text-embedding-3-large",type="prompt"}'), 2, 'paid tokens';
	cmp_ok metric("saved_tokens_total{model=\"$M\"}"), '>', 3000 * 6, 'saved tokens';
	my %by;
	my $page = http('GET', $d->url . '/metrics')->{body};
	$by{$1} += $2 while $page =~ /^gatewayd_requests_total\{result="(\w+)",status="\d+"\} (\d+)$/mg;
	ok $by{hit} && $by{miss} && $by{partial}, 'results';
	is metric('gatewayd_flights'), 0, 'nothing on its way';
	my $stats = $openai->stats;
	is metric('gatewayd_provider_request_duration_seconds_count{service="openai",status="200"}'), scalar @{$stats->{log}},
		'a duration for each call to the provider';
	my %asked;
	$asked{$1} += $2 while $page =~ /^openai_requests_total\{model="([^"]+)",status="200"\} (\d+)$/mg;
	my $calls = 0;
	$calls += $_ for values %asked;
	is $calls, scalar @{$stats->{log}}, 'by model';
	like $page, qr/^gatewayd_store_look_up_duration_seconds_count\{store="dir",result="(?:miss|hit)"\} [1-9]/m, 'and for look-ups';
	like $page, qr/^gatewayd_store_put_duration_seconds_count\{store="dir",result="stored"\} [1-9]/m, 'and for storing';
};

subtest 'bought numbers that are not float32 stay exact' => sub {
	my $r = ask({ input => 'exact', model => $M, dimensions => 4 });
	like $r->{body}, qr/"embedding":\[-?\d/, 'numbers';
	for (@{ $r->{json}{data}[0]{embedding} }) {
		is unpack('f<', pack('f<', $_)), $_, "$_ is a float32";
	}
};

done_testing;
