#!/usr/bin/env perl

# The harness itself: the fake provider and the clients against each other, and the guards that make
# other tests fail.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Compress::Zlib ();
use MIME::Base64 qw(decode_base64);

my $openai = fake_openai();
my $url = $openai->base . '/embeddings';
my @key = (Authorization => 'Bearer sk-one');

sub embed
{
	my ($input, %o) = @_;
	return http_json($url, { model => 'text-embedding-3-small', dimensions => 8, input => $input, %o }, \@key);
}

subtest 'vectors' => sub {
	my $one = embed('hello wide world');
	is $one->{status}, 200, 'answered';
	is $one->{headers}{'content-type'}, 'application/json', 'as JSON';
	my $v = $one->{json}{data}[0]{embedding};
	is scalar @$v, 8, 'of the dimensions asked for';
	my $sum = 0;
	$sum += $_ * $_ for @$v;
	ok abs($sum - 1) < 1e-6, 'of length 1';
	is_deeply [ map { unpack 'f', pack 'f', $_ } @$v ], $v, 'exact float32';
	is_deeply $one->{json}{usage}, { prompt_tokens => 4, total_tokens => 4 }, 'words + 1 tokens';

	my $many = embed([ 'a b', 'hello wide world', 'a b' ], encoding_format => 'base64');
	my @v = map { [ unpack 'f<*', decode_base64($_->{embedding}) ] } @{ $many->{json}{data} };
	is_deeply $v[1], $v, 'base64 has the same bits, alone or in an array';
	is_deeply $v[0], $v[2], 'the same text, the same vector';
	isnt "@{$v[0]}", "@{$v[1]}", 'another text, another vector';
	is_deeply [ map { $_->{index} } @{ $many->{json}{data} } ], [ 0, 1, 2 ], 'indices';
	is $many->{json}{usage}{prompt_tokens}, 10, 'tokens add up';

	my $tokens = embed([ [ 1, 2, 3 ], [ 4 ] ]);
	is $tokens->{json}{usage}{prompt_tokens}, 4, 'a token array costs its length';
	is_deeply embed([ 1, 2, 3 ])->{json}{data}[0]{embedding}, $tokens->{json}{data}[0]{embedding}, 'one token array';
	is scalar @{ embed('x', dimensions => undef)->{json}{data}[0]{embedding} }, 1536, 'default dimensions';
};

subtest 'refusals' => sub {
	is http_json($url, { model => 'text-embedding-3-small', input => 'x' })->{status}, 401, 'no key';
	my $bad = http_json($url, { model => 'text-embedding-3-small', input => 'x' }, [ Authorization => 'Bearer sk-bad1' ]);
	is $bad->{status}, 401, 'a bad key';
	is $bad->{json}{error}{code}, 'invalid_api_key', 'OpenAI-shaped';
	is embed($_->[1])->{status}, 400, $_->[0]
		for [ 'empty text', '' ], [ 'empty array', [] ], [ 'null', undef ], [ 'mixed', [ 'a', 1 ] ], [ 'a number', 7 ],
		[ 'object', {} ], [ 'too many', [ ('x') x 2049 ] ];
	is embed('x', model => 'gpt-9')->{status}, 404, 'unknown model';
	is http_json($url, '{"model":', \@key)->{status}, 400, 'bad JSON';
	is http('GET', $openai->base . '/models', \@key)->{status}, 200, 'models';
	is http('GET', $openai->url . '/nothing')->{status}, 404, 'unknown path';
};

subtest 'counting' => sub {
	$openai->reset;
	embed([ 'one', 'two' ]);
	embed('three', user => 'u');
	my $s = $openai->stats;
	is $s->{calls}, 2, 'calls';
	is $s->{inputs}, 3, 'inputs';
	is $s->{tokens}, 6, 'tokens';
	is_deeply $s->{log}[0]{input}, [ 'one', 'two' ], 'what was asked';
	is $s->{log}[1]{authorization}, 'Bearer sk-one', 'by whom';
	is $s->{log}[1]{user}, 'u', 'user';
	is $s->{statuses}{200}, 2, 'answers by status';
};

subtest 'faults' => sub {
	my $call = sub {
		$openai->mode(times => 1, @_);
		my ($r) = http_many([ { url => $openai->url, method => 'POST', target => '/v1/embeddings', headers => \@key,
			body => json_encode({ model => 'fake-1', dimensions => 4, input => [ 'a', 'b' ] }) } ], timeout => 5);
		$r->{json} = eval { json_decode($r->{body}) };
		return $r;
	};
	my $r = $call->(fault => 'status', status => 429, headers => { 'Retry-After' => 7 });
	is "$r->{status} $r->{headers}{'retry-after'}", '429 7', 'status with headers';
	is $call->()->{status}, 200, 'once only';
	like $call->(fault => 'reset')->{error}, qr/reset|closed/i, 'reset';
	like $call->(fault => 'reset_body')->{error}, qr/reset|closed/i, 'reset in the body';
	like $call->(fault => 'close')->{error}, qr/closed/, 'close';
	like $call->(fault => 'short')->{error}, qr/closed/, 'a short body';
	is $call->(fault => 'bad_json')->{json}, undef, 'bad JSON';
	is scalar @{ $call->(fault => 'fewer')->{json}{data} }, 1, 'too few';
	is scalar @{ $call->(fault => 'more')->{json}{data} }, 3, 'too many';
	like $call->(fault => 'nan')->{body}, qr/NaN/, 'NaN';
	is $call->(fault => 'no_usage')->{json}{usage}, undef, 'no usage';
	is $call->(fault => 'reversed')->{json}{data}[0]{index}, 1, 'reversed';
	is $call->(fault => 'chunked', chunk_bytes => 10)->{json}{object}, 'list', 'chunked';
	is $call->(fault => 'drip', drip_bytes => 100, drip_ms => 1)->{json}{object}, 'list', 'drip';
	$r = $call->(fault => 'gzip');
	is json_decode(Compress::Zlib::memGunzip($r->{body}))->{object}, 'list', 'gzip';
	$r = $call->(fault => 'gzip_bomb', bomb_bytes => 10 << 20);
	ok length $r->{body} < 100_000, 'gzip bomb';
	ok $call->(latency_ms => 50)->{ms} >= 50, 'latency';

	$openai->reset;
	$openai->mode(fault => 'hang');
	my $c = EG::HTTP->new($openai->url);
	$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', \@key, '{}'));
	is $openai->wait(calls => 1)->{calls}, 1, 'wait for a call';
	$c->close;
	is $openai->wait(aborted => 1)->{aborted}, 1, 'a client that leaves is counted';
};

subtest 'many at once, held' => sub {
	$openai->reset;
	$openai->mode(hold => \1);
	my $body = json_encode({ model => 'fake-1', dimensions => 4, input => 'same' });
	my $pid = fork // die;
	if (!$pid) {
		EG::FakeOpenAI::wait($openai, held => 500);
		EG::FakeOpenAI::release($openai);
		POSIX::_exit(0);
	}
	my @r = http_many([ map { { url => $openai->url, method => 'POST', target => '/v1/embeddings', headers => \@key,
		body => $body } } 1 .. 500 ]);
	waitpid $pid, 0;
	is scalar(grep { $_->{status} == 200 } @r), 500, '500 answers';
	is scalar(grep { $_->{body} eq $r[0]{body} } @r), 500, 'all the same';
	is $openai->calls, 500, '500 calls';
};

subtest 'MessagePack' => sub {
	for my $v (
		undef, 0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, -1, -32, -33, -128, -129, -32769,
		-2147483649, 1.5, '', 'a', 'x' x 31, 'x' x 32, 'x' x 300, 'x' x 70000, [], [ 1, [ 2, undef ] ], [ (1) x 20 ],
		{ a => 1, b => [ 'c' ] }, JSON::PP::true, JSON::PP::false,
	) {
		my $packed = mp_pack($v);
		is_deeply mp_unpack($packed), $v, 'round trip of ' . substr json_encode($v), 0, 20;
		my @cut = grep { my $part = substr $packed, 0, $_; defined((mp_unpack_one(\$part, 0))[1]) }
			0 .. (length $packed > 300 ? 300 : length($packed) - 1);
		is "@cut", '', 'incomplete at every cut' if length $packed < 300;
	}
	is unpack('H*', mp_pack([ 1, 'a', mp_bin("\xff"), mp_int('7'), mp_str(5) ])), '9501a161c401ff07a135', 'exact bytes';
};

subtest 'guards' => sub {
	my $run = sub {
		my ($script) = @_;
		my $path = spew(test_path('inner.t'), "use lib '$FindBin::Bin/../lib'; use EG::Test; $script");
		my $out = qx{$^X $path 2>&1};
		return ($? >> 8, $out);
	};
	my $sh = q{process('sh', ['/bin/sh', '-c', $ARGV[0] // '%s'], ready => %s, stop_ms => 300)};
	my ($code) = $run->('ok 1; ' . sprintf($sh, 'exec sleep 60', 0) . '->stop(exit => qr/^15$/); done_testing');
	is $code, 0, 'a program that leaves on SIGTERM passes';
	my $out;
	($code, $out) = $run->('ok 1; my $p = ' . sprintf($sh, 'exit 3', 0) . '; $p->wait_exit; done_testing');
	isnt $code, 0, 'an unexpected exit code fails';
	like $out, qr/ended with code 3/, 'and is told';
	($code, $out) = $run->('ok 1; my $p = ' . sprintf($sh, 'kill -SEGV $$', 0) . '; $p->wait_exit; done_testing');
	isnt $code, 0, 'an unexpected signal fails';
	($code, $out) = $run->('ok 1; my $p = ' . sprintf($sh, 'echo "==1==ERROR: AddressSanitizer: x" >&2', 0) . '; $p->wait_exit; done_testing');
	isnt $code, 0, 'a sanitizer report fails';
	($code, $out) = $run->('ok 1; my $p = ' . sprintf($sh, 'trap "" TERM; echo up >&2; while :; do read x < /dev/null; done', 'qr/up/') . '; done_testing');
	isnt $code, 0, 'one that does not leave fails';
	like $out, qr/did not leave/, 'and is told';
	($code, $out) = $run->('my $p = ' . sprintf($sh, 'exec sleep 60', 0) . '; print "pid=", $p->pid, "\n"; die "oops"');
	isnt $code, 0, 'a test that dies fails';
	ok $out =~ /pid=(\d+)/ && !kill(0, $1), 'and leaves nothing behind';
};

done_testing;
