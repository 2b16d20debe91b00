#!/usr/bin/env perl

# A directory that the Python gateway filled, in both of its layouts, is served without a single purchase.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Compress::Zlib ();
use MIME::Base64 qw(decode_base64);

my $MODEL = 'text-embedding-3-small';
my $openai = fake_openai();

# Bodies as clients wrote them: the legacy key is of all of it, whatever the order and the blanks.
my @bodies = (
	qq({"input":"one text","model":"$MODEL"}),
	qq({"model": "$MODEL",  "input": ["one in a list"]}),
	qq({"input":["a","b","c","b"],"model":"$MODEL","encoding_format":"float","user":"u-1"}),
	qq({"encoding_format":"base64","input":["d","e"],"model":"$MODEL"}),
	qq({"dimensions":64,"input":["f","g","h"],"model":"$MODEL"}),
	qq({"input":"gr\\u00fc\xc3\x9fe \xf0\x9f\x98\x80 \x7f","model":"$MODEL","user":"\xc3\xa9"}),
	qq({"input":[1,2,3],"model":"$MODEL"}),
	qq({"input":[[4,5],[6]],"model":"$MODEL","user":"u"}),
	json_encode({ input => [ map { "chunk $_" } 1 .. 300 ], model => $MODEL, dimensions => 8, user => "batch" }),
);
my $lines = '';
my @answers;
for my $body (@bodies) {
	my $r = http_json($openai->base . '/embeddings', $body, [ Authorization => 'Bearer sk-x' ]);
	is $r->{status}, 200, 'bought long ago' or diag $r->{body};
	push @answers, $r->{json};
	$lines .= json_encode({ body => $body =~ s/([\x80-\xff]+)/my $t = $1; utf8::decode($t); $t/ger, answer => $answers[-1] }) . "\n";
}

sub fill
{
	my ($layout, $dir) = @_;
	my $input = spew(test_path("$layout.jsonl"), $lines);
	my @names = `python3 '@{[ eg_root() ]}/tests/lib/legacy_store' $layout '$dir' < '$input'`;
	is scalar @names, scalar @bodies, "$layout: filled";
	return map { chomp; $_ } @names;
}

sub post
{
	my ($d, $body) = @_;
	return http_json($d->url . '/v1/embeddings', $body, [ Authorization => 'Bearer sk-x' ]);
}

sub floats
{
	my ($answer) = @_;
	return [ map { ref $_->{embedding} ? $_->{embedding} : [ unpack 'f<*', decode_base64($_->{embedding}) ] } @{ $answer->{data} } ];
}

my $n = 0;
sub gateway
{
	return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $n++ . '.sock', env => { OPENAI_BASE_URL => $openai->base, @_ });
}

for my $layout (qw(embeddings hashed)) {
	subtest $layout => sub {
		my $dir = test_path($layout);
		my @names = fill($layout, $dir);
		my %before = map { $_ => slurp("$dir/$_") } @names;
		my $before = $openai->calls;
		my $d = gateway(STORE_DIR => $dir, STORE_LEGACY_LAYOUT => $layout);
		for my $i (0 .. $#bodies) {
			my $r = post($d, $bodies[$i]);
			is $r->{status}, 200, "body $i" or diag $r->{body};
			is $r->{headers}{'x-cache'}, 'HIT', 'a hit';
			is_deeply [ map { $_->{index} } @{ $r->{json}{data} } ], [ 0 .. $#{ $answers[$i]{data} } ], 'in order';
			is_deeply floats($r->{json}), floats($answers[$i]), 'the same vectors';
			is $r->{json}{usage}{total_tokens}, $answers[$i]{usage}{total_tokens}, 'the usage of then' if $i != 2;
			is $r->{json}{model}, $answers[$i]{model}, 'the model of then';
			like $r->{headers}{age}, qr/^\d+$/, 'an age';
		}
		is $openai->calls, $before, 'not one purchase';

		# Batches warm singles: they were taken apart.
		is post($d, qq({"input":"c","model":"$MODEL"}))->{headers}{'x-cache'}, 'HIT', 'an element of a batch';
		wait_for { 300 + 10 <= (my @all = glob "$dir/embeddings/*.json.gz") } 'its elements in the store';
		$d->restart;
		is post($d, qq({"input":"chunk 17","model":"$MODEL","dimensions":8}))->{headers}{'x-cache'}, 'HIT', 'also after a restart';
		is post($d, qq({"input":["c","b","one text"],"model":"$MODEL"}))->{headers}{'x-cache'}, 'HIT', 'in another batch';
		is $openai->calls, $before, 'still not one purchase';
		is_deeply { map { $_ => slurp("$dir/$_") } @names }, \%before, 'what the Python gateway wrote is as it was';
		is post($d, qq({"input":"unheard of","model":"$MODEL"}))->{headers}{'x-cache'}, 'MISS', 'what is not there is bought';
	};
}

subtest 'two instances' => sub {
	for my $layout (qw(embeddings hashed)) {
		my $dir = test_path("two-$layout");
		fill($layout, $dir);
		my $before = $openai->calls;
		mkdir test_path("run-$layout");
		my @d = map { daemon('gatewayd', http => 1, rpc => "run-$layout/gatewayd.$_.sock", env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => $dir,
			STORE_LEGACY_LAYOUT => $layout, RUN_DIR => test_path("run-$layout"), GATEWAYD_INSTANCE => $_, GATEWAYD_INSTANCES => 2 }) } 0, 1;
		for my $i (0 .. $#bodies) {
			my $r = post($d[ $i % 2 ], $bodies[$i]);
			is_deeply floats($r->{json}), floats($answers[$i]), "$layout: body $i";
			is $r->{headers}{"x-cache"}, "HIT", "a hit";
		}
		is $openai->calls, $before, 'not one purchase';
		$_->stop for @d;
	}
};

subtest 'not for everybody' => sub {
	my $dir = test_path('closed');
	fill('embeddings', $dir);
	my $before = $openai->calls;
	my %never = (off => { STORE_LEGACY_READ => 'off' }, 'per-key' => { CACHE_SCOPE => 'per-key' });
	for my $how (sort keys %never) {
		my $copy = test_path("closed-$how");
		fill('embeddings', $copy);
		my $d = gateway(STORE_DIR => $copy, %{ $never{$how} });
		is post($d, $bodies[1])->{headers}{'x-cache'}, 'MISS', "$how: bought";
		$d->stop;
	}
	is $openai->calls, $before + 2, 'twice';
	my $mock = gateway(STORE_DIR => $dir, PROVIDER => 'mock');
	is post($mock, $bodies[0])->{headers}{'x-cache'}, 'MISS', 'the mock does not see them';
};

subtest 'damaged' => sub {
	my $dir = test_path('damaged');
	my @names = fill('hashed', $dir);
	my $gzip = sub { Compress::Zlib::memGzip(json_encode($_[0])) };
	my $wrong = { %{ $answers[2] }, data => [ @{ $answers[2]{data} }[ 0 .. 2 ] ] };
	my %damage = (
		0 => 'no gzip', 1 => '', 2 => $gzip->($wrong), 3 => substr(slurp("$dir/$names[3]"), 0, 100),
		4 => $gzip->({ error => 'x' }), 6 => $gzip->({ data => [ { embedding => [ 'x' ], index => 0 } ] }),
	);
	spew("$dir/$names[$_]", $damage{$_}) for keys %damage;
	my $d = gateway(STORE_DIR => $dir, STORE_LEGACY_LAYOUT => 'hashed');
	for my $i (sort keys %damage) {
		my $r = post($d, $bodies[$i]);
		is $r->{headers}{'x-cache'}, 'MISS', "body $i is bought";
		is_deeply floats($r->{json}), floats($answers[$i]), 'and right';
		is slurp("$dir/$names[$i]"), $damage{$i}, 'the object is left alone';
	}
	is post($d, $bodies[5])->{headers}{'x-cache'}, 'HIT', 'the others are served';
};

done_testing;
