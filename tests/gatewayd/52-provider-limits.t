#!/usr/bin/env perl

# A provider takes so many inputs and tokens in one call: larger batches are split, and cut in halves when it says so.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $openai = fake_openai();
my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock',
	env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', MAX_RETRIES => 0 });
my $fresh = 0;

sub ask
{
	my ($input, $model) = @_;
	return http_json($d->url . '/v1/embeddings', { input => $input, model => $model, dimensions => 4, encoding_format => 'float' },
		[ Authorization => 'Bearer sk-good' ]);
}
sub metric { my ($name) = @_; return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : die "no $name" }
# Texts that nobody has seen, of so many words of so many letters.
sub texts { my ($n, $words, $letters) = @_; my $text = ' ' . 'x' x $letters; return [ map { 'n' . $fresh++ . $text x $words } 1 .. $n ] }
sub sizes { return join ' ', sort { $b <=> $a } map { $_->{count} } grep { $_->{status} == 200 } @{ $openai->stats->{log} } }

sub is_right
{
	my ($r, $texts, $model) = @_;
	is $r->{status}, 200, 'served' or diag(substr $r->{body}, 0, 500), return;
	is scalar @{ $r->{json}{data} }, @$texts, 'every element';
	# Each where it belongs: single ones are hits now, and the same.
	my @wrong = grep { my $one = ask($texts->[$_], $model);
		$one->{headers}{'x-cache'} ne 'HIT' || "@{ $one->{json}{data}[0]{embedding} }" ne "@{ $r->{json}{data}[$_]{embedding} }" }
		0, 1, int(@$texts / 2), $#$texts;
	is "@wrong", '', 'in its place';
	my $direct = http_json($openai->url . '/v1/embeddings', { input => $texts->[-1], model => $model, dimensions => 4 }, [ Authorization => 'Bearer sk-good' ]);
	is "@{ $r->{json}{data}[-1]{embedding} }", "@{ $direct->{json}{data}[0]{embedding} }", 'and what the provider says';
	return;
}

subtest 'split by bytes, until the provider is known' => sub {
	my $model = 'fake-bytes';
	my $texts = texts(100, 1000, 9); # 10,000 bytes and 1,002 tokens each
	my $r = ask($texts, $model);
	is sizes(), join(' ', (29) x 3, 13), 'a token is at least a byte';
	is $r->{json}{usage}{total_tokens}, 100 * 1002, 'usage to the token';
	is_right($r, $texts, $model);
	is ask(texts(2, 1000, 9), $model)->{status}, 200, 'more' for 1 .. 15;
	$openai->reset;
	is ask(texts(100, 1000, 9), $model)->{status}, 200, 'and many';
	is sizes(), '100', 'then the ratio is known';
	is metric('gatewayd_provider_bisections_total'), 0, 'nothing was refused';
};

subtest 'halves, when the ratio was too low' => sub {
	$openai->reset;
	my $model = 'fake-bytes'; # learned above: about 0.1 tokens a byte
	my $texts = texts(100, 4000, 1); # 8,000 bytes and 4,002 tokens each
	my $r = ask($texts, $model);
	is $r->{json}{usage}{total_tokens}, 100 * 4002, 'usage to the token';
	is_right($r, $texts, $model);
	is metric('gatewayd_provider_bisections_total'), 1, 'refused once';
	is $openai->stats->{statuses}{400}, 1, 'by the provider';
	$openai->reset;
	is ask(texts(100, 4000, 1), $model)->{status}, 200, 'the next batch';
	is $openai->stats->{statuses}{400}, undef, 'has learned from it';
};

subtest 'a provider of few inputs' => sub {
	$openai->reset;
	$openai->mode(max_inputs => 16);
	my $model = 'fake-few';
	my $texts = texts(100, 1, 1);
	my $r = ask($texts, $model);
	is $r->{json}{usage}{total_tokens}, 300, 'usage to the token';
	is_right($r, $texts, $model);
	my ($largest) = sort { $b <=> $a } split / /, sizes();
	cmp_ok $largest, '<=', 16, 'in calls that it takes';
	cmp_ok $largest, '>=', 8, 'not smaller than needed';
	my $refused = $openai->stats->{statuses}{400};
	is ask(texts(100, 1, 1), $model)->{status}, 200, 'the next batch';
	is $openai->stats->{statuses}{400}, $refused, 'is right at once';
	$openai->mode;
};

subtest 'a provider of few tokens' => sub {
	$openai->reset;
	$openai->mode(max_tokens => 1000);
	my $texts = texts(64, 99, 1); # 101 tokens each
	my $r = ask($texts, 'fake-small');
	is $r->{json}{usage}{total_tokens}, 64 * 101, 'usage to the token';
	is_right($r, $texts, 'fake-small');
	$openai->mode;
};

subtest 'token ids' => sub {
	$openai->reset;
	my @lists = map { my $i = $_; [ map { $i * 1000 + $_ } 1 .. 1000 ] } 1 .. 400;
	my $r = ask(\@lists, 'fake-ids');
	is $r->{status}, 200, 'served';
	is sizes(), '300 100', 'counted exactly, not by bytes';
	is $r->{json}{usage}{total_tokens}, 400_000, 'usage to the token';
};

subtest 'one input that is too large' => sub {
	$openai->reset;
	$openai->mode(max_tokens => 1000);
	my $texts = texts(8, 10, 1);
	$texts->[5] = "large $fresh" . ' x' x 1000;
	my $r = ask($texts, 'fake-large');
	is $r->{status}, 400, 'is the caller\'s';
	is $r->{json}{error}{code}, 'max_tokens_per_request', 'in the provider\'s words';
	cmp_ok $openai->calls, '<=', 12, 'after a few calls';
	$openai->mode;
	my $bought = $openai->stats->{inputs};
	is ask($texts, 'fake-large')->{status}, 200, 'where it is allowed';
	cmp_ok $openai->stats->{inputs}, '<=', 8, 'what was bought with it was kept';
	cmp_ok $bought, '>', 0, 'there was some';
};

subtest 'one part fails' => sub {
	$openai->reset;
	my $texts = texts(40, 1, 20_000); # 20,000 bytes each: 15 a call, three calls
	$texts->[-1] .= ' unlucky';
	$openai->mode(fault => 'status', status => 500, match => 'unlucky');
	my $r = ask($texts, 'fake-parts');
	is $r->{status}, 500, 'the request fails';
	is ask($texts->[0], 'fake-parts')->{headers}{'x-cache'}, 'HIT', 'what was bought is kept';
	$openai->mode;
	is ask($texts, 'fake-parts')->{status}, 200, 'then it is served';
	my $stats = $openai->stats;
	is $stats->{statuses}{200}, 3, 'each part paid for once';
	is metric('openai_tokens_used_total{model="fake-parts",type="prompt"}'), 40 * 3 + 1, 'and counted';
};

# `dimensions` are asked for in each of these requests: 4.
sub lengths { my ($r) = @_; return join ' ', map { scalar @{ $_->{embedding} } } @{ $r->{json}{data} } }

subtest 'a provider that ignores dimensions' => sub {
	$openai->reset;
	$openai->mode(dimensions => 6);
	my $texts = texts(3, 1, 1);
	is lengths(ask($texts, 'fake-ignores')), '6 6 6', 'its vectors are passed on';
	my $again = ask($texts, 'fake-ignores');
	is $again->{headers}{'x-cache'}, 'HIT', 'and kept';
	is lengths($again), '6 6 6', 'as they were';
	$openai->mode;
	my $mixed = [ $texts->[0], @{ texts(1, 1, 1) } ];
	my $warnings = sub { scalar grep { $_->{body} =~ /embeddings of different lengths/ } $d->log_lines };
	is lengths(ask($mixed, 'fake-ignores')), '6 4', 'it changes its mind: each as it gave it';
	is lengths(ask($mixed, 'fake-ignores')), '6 4', 'and again';
	is $warnings->(), 2, 'with a warning each time, so it was not kept as a whole';
	is $openai->calls, 2, 'nothing is bought twice';
};

subtest 'a provider that changes its mind between two parts' => sub {
	$openai->reset;
	my $texts = texts(40, 1, 20_000);
	$texts->[-1] .= ' longer';
	$openai->mode(dimensions => 6, match => 'longer');
	my $r = ask($texts, 'fake-uneven');
	is $r->{status}, 502, 'the request fails';
	is $r->{json}{error}{code}, 'provider_broken_answer', 'for what the provider did';
	like $r->{json}{error}{message}, qr/different lengths/, 'and says so';
	$openai->mode;
	is ask($texts, 'fake-uneven')->{status}, 200, 'then it is served';
};

subtest 'not every 400 is about size' => sub {
	$openai->reset;
	is ask(texts(10, 1, 1), 'unknown-model')->{status}, 404, 'no such model';
	$openai->mode(fault => 'status', status => 400);
	is ask(texts(10, 1, 1), 'fake-400')->{status}, 400, 'another 400';
	is $openai->calls, 2, 'nothing was cut in halves';
	$openai->mode;
};

done_testing;
