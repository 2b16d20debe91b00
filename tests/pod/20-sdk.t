#!/usr/bin/env perl

# The real OpenAI SDK with its default settings (it asks for base64) and curl (float) get equal vectors.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;
use IPC::Open2;

my $node = "$FindBin::Bin/../lib/node";
plan(skip_all => 'Node 20 or newer is not installed') if qx{node -p 'parseInt(process.versions.node) >= 20' 2>&1} !~ /true/;
plan(skip_all => 'the openai package is not installed (mk/deps test)') if !-d "$node/node_modules/openai";

my $pod = EG::Pod->new;
my $openai = $pod->openai;

sub sdk
{
	my ($base, @requests) = @_;
	my $pid = open2(my $out, my $in, 'node', "$node/embed.mjs", $base);
	print $in json_encode($_), "\n" for @requests;
	close $in;
	my @answers = map { json_decode($_) } <$out>;
	waitpid $pid, 0;
	return @answers;
}

sub curl
{
	my ($input) = @_;
	my $body = json_encode({ model => 'text-embedding-3-small', input => $input });
	open my $curl, '-|', 'curl', '-s', '-H', 'Authorization: Bearer sk-curl', '-H', 'Content-Type: application/json',
		'--compressed', '-d', $body, $pod->url . '/v1/embeddings' or die "curl: $!";
	local $/;
	return json_decode(<$curl>);
}

my $model = 'text-embedding-3-small';
my $base = $pod->url . '/v1';
my ($array, $alone, $float, $bad) = sdk($base,
	{ model => $model, input => [ 'one', 'two words', 'one' ] }, { model => $model, input => 'two words' },
	{ model => $model, input => 'two words', encoding_format => 'float' }, { model => $model, input => [] });

is scalar @{ $array->{embeddings} }, 3, 'the SDK gets an array of 3';
is_deeply $array->{embeddings}[0], $array->{embeddings}[2], 'with the repeated text twice';
is $array->{usage}{prompt_tokens}, 2 + 3 + 2, 'usage';
is $alone->{cache}, 'HIT', 'a text from the array is a HIT when asked alone';
is_deeply $alone->{embeddings}[0], $array->{embeddings}[1], 'with the same vector';
is $alone->{usage}{prompt_tokens}, 3, 'and its own usage';
is_deeply $float->{embeddings}, $alone->{embeddings}, 'float is the same';
is $bad->{status}, 400, 'the SDK understands our errors';

is_deeply [ map { $_->{embedding} } @{ curl([ 'one', 'two words', 'one' ])->{data} } ], $array->{embeddings}, 'curl gets equal vectors';
is_deeply curl('two words')->{data}[0]{embedding}, $alone->{embeddings}[0], 'alone too';
is $openai->stats->{inputs}, 2, 'two texts, bought once each';

# What the SDK gets from the provider itself is what it gets from us.
my ($direct) = sdk($openai->base, { model => $model, input => [ 'one', 'two words', 'one' ] });
is_deeply $array->{embeddings}, $direct->{embeddings}, 'equal to the provider';

done_testing;
