#!/usr/bin/env perl

# Three instances under what is hard on them: bad keys beside good ones, the largest batches there are, one of them
# killed in the middle.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $openai = fake_openai();
my $M = 'text-embedding-3-small';
my $started = 0;

# Each set in a directory of its own: the sockets' names are the instances'.
sub instances
{
	my ($n, %env) = @_;
	my $dir = test_path('set' . ++$started);
	mkdir $dir;
	return map { daemon('gatewayd', http => 1, rpc => "set$started/gatewayd.$_.sock",
		env => { RUN_DIR => $dir, OPENAI_BASE_URL => $openai->base, STORE => 'none', CIRCUIT_BREAKER_THRESHOLD => 1000, GATEWAYD_INSTANCE => $_,
			GATEWAYD_INSTANCES => $n, %env }) } 0 .. $n - 1;
}
sub request
{
	my ($d, $key, $input, %more) = @_;
	return { url => $d->url, method => 'POST', target => '/v1/embeddings', headers => [ Authorization => "Bearer $key", 'Content-Type' => 'application/json' ],
		body => json_encode({ model => $M, input => $input, dimensions => 16, %more }) };
}
sub ask { my @r = http_many([ request(@_) ], timeout => 2 * $EG::Test::TIMEOUT); $r[0]{json} = eval { json_decode($r[0]{body}) }; return $r[0] }
sub total
{
	my ($name, @d) = @_;
	my $sum = 0;
	for (@d) { $sum += http('GET', $_->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : 0 }
	return $sum;
}

my @d = instances(3);

subtest 'at most one call an instance' => sub {
	for my $n (1, 2, 3, 50, 2048) {
		$openai->reset;
		my $r = ask($d[ $n % 3 ], 'sk-good', [ map { "a batch of $n: $_" } 1 .. $n ]);
		is $r->{status}, 200, "batch of $n" or diag $r->{body};
		is scalar @{ $r->{json}{data} }, $n, 'all of it';
		cmp_ok $openai->calls, '<=', 3, 'calls';
		is $openai->stats->{inputs}, $n, 'inputs';
	}
};

subtest 'a bad key harms nobody, wherever the elements live' => sub {
	$openai->reset;
	$openai->mode(latency_ms => 20);
	# The same texts at the same time from both kinds, through all instances.
	my @texts = map { "fought over $_" } 0 .. 59;
	my @q = map { my $n = $_; request($d[ $n % 3 ], $n % 2 ? 'sk-good' : "sk-bad$n", [ map { $texts[ ($n * 7 + $_) % 60 ] } 0 .. 29 ]) } 0 .. 119;
	my @r = http_many(\@q, connections => 60);
	is scalar(grep { $r[$_]{status} == 200 } grep { $_ % 2 } 0 .. 119), 60, 'every good one is answered';
	# A bad key's request whose texts all are there by then is a hit (its key is not checked: SECURITY.md).
	my %status;
	$status{ $r[$_]{status} }++ for grep { !($_ % 2) } 0 .. 119;
	is_deeply [ grep { $_ != 401 && $_ != 200 } keys %status ], [], 'a bad one is told so, or hits';
	cmp_ok $status{401} // 0, '>', 0, 'some are';
	is $openai->stats->{inputs}, 60, 'each text bought once';
	$openai->mode;
};

subtest 'a key over its limit harms nobody either' => sub {
	$openai->reset;
	$openai->mode(latency_ms => 20, fault => 'status', status => 429, headers => { 'Retry-After' => 40 }, match => 'sk-limited');
	my @texts = map { "limited $_" } 0 .. 29;
	my @r = http_many([ map { request($d[ $_ % 3 ], $_ % 2 ? 'sk-good' : 'sk-limited', \@texts) } 0 .. 29 ], connections => 30);
	is scalar(grep { $r[$_]{status} == 200 } grep { $_ % 2 } 0 .. 29), 15, 'the others are served';
	is scalar(grep { $r[$_]{status} == 429 && ($r[$_]{headers}{'retry-after'} // 0) <= 40 || $r[$_]{status} == 200 } grep { !($_ % 2) } 0 .. 29), 15,
		'it is told when to come back, or was lucky';
	$openai->mode;
};

subtest 'one killed in the middle of large batches' => sub {
	$openai->reset;
	$openai->mode(latency_ms => 30);
	my @texts = map { "in the middle $_" } 0 .. 799;
	my $killed;
	my @r = http_many([ map { my $n = $_; request($d[ $n % 2 ], 'sk-good', [ map { $texts[ ($n * 50 + $_) % 800 ] } 0 .. 399 ]) } 0 .. 23 ], connections => 8,
		on_done => sub { $d[2]->kill9 if !$killed++ });
	is scalar(grep { $_->{status} == 200 } @r), 24, 'every request through the others is answered';
	my (%vector, $wrong);
	for my $n (0 .. 23) {
		my $data = (eval { json_decode($r[$n]{body}) } // {})->{data} // [];
		for my $i (0 .. 399) {
			my $v = join ',', @{ $data->[$i]{embedding} // [] };
			$wrong++ if ($vector{ ($n * 50 + $i) % 800 } //= $v) ne $v || $v eq '';
		}
	}
	is $wrong, undef, 'every vector in its place';
	cmp_ok $openai->stats->{inputs}, '<=', 800 * 2, 'what the dead one had is bought once more, at most';
	$d[2]->start;
	$openai->mode;
};
$_->stop for @d;

subtest 'two batches of 2,048 with 3,072 dimensions' => sub {
	my @m = instances(2, PROVIDER => 'mock', CACHE_SIZE => '128MB');
	my @texts = map { "large vector $_" } 1 .. 2048;
	my %o = (dimensions => 3072, encoding_format => 'base64', model => 'text-embedding-3-large');
	my @r = http_many([ request($m[0], 'sk-a', \@texts, %o), request($m[1], 'sk-b', [ reverse @texts ], %o) ], timeout => 2 * $EG::Test::TIMEOUT);
	is join(' ', map { $_->{status} } @r), '200 200', 'answered' or return;
	my @v = map { [ $_->{body} =~ /"embedding":\s*"([^"]+)"/g ] } @r;
	is scalar @{ $v[$_] }, 2048, 'all of them' for 0, 1;
	is scalar(grep { length != 16384 } @{ $v[0] }), 0, 'each of 3,072 numbers';
	is_deeply [ reverse @{ $v[1] } ], $v[0], 'the same from both sides, each in its place';
	is total('gatewayd_inputs_bought_total', @m), 2048, 'bought once';
	is ask($m[1], 'sk-c', $texts[1000], %o)->{json}{data}[0]{embedding}, $v[0][1000], 'and one alone is one of them';
	cmp_ok rss_kb($_->pid) / 1024, '<', 128 + 160, 'memory: the cache and what is under way' for @m;
	$_->stop for @m;
};

done_testing;
