#!/usr/bin/env perl

# A file of accepted keys: who is in it is served, on the gateway's account; limits; reload.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);

my $openai = fake_openai();
my $file = spew(test_path('keys'), "# accepted\n\n" . sha256_hex('team-a') . "\n  " . uc(sha256_hex('team-b')) . "  rpm=60 # slow\r\n" . sha256_hex('team-c'));
my $n = 0;
sub gateway { return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $n++ . '.sock', env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', @_ }) }
my $d = gateway(CLIENT_KEYS_FILE => $file, OPENAI_API_KEY => 'sk-own');

sub ask
{
	my ($gateway, $key, $text, @headers) = @_;
	return http_json($gateway->url . '/v1/embeddings', { input => $text, model => 'text-embedding-3-small', dimensions => 4 },
		[ defined $key ? (Authorization => $key) : (), @headers ]);
}

subtest 'who is in the file' => sub {
	is ask($d, 'Bearer team-a', 'one', 'OpenAI-Organization' => 'org-caller')->{status}, 200, 'served';
	my $call = $openai->stats->{log}[-1];
	is $call->{authorization}, 'Bearer sk-own', 'on the gateway\'s account';
	ok !exists $call->{headers}{'openai-organization'}, 'without the caller\'s organization';
	is ask($d, 'bearer team-c', 'one')->{headers}{'x-cache'}, 'HIT', 'another key, the same cache; the scheme in any case';
};

subtest 'who is not' => sub {
	my $calls = $openai->calls;
	for ([ undef, 'missing_api_key' ], [ 'Bearer ', 'missing_api_key' ], [ 'Basic dGVhbS1h', 'missing_api_key' ], [ 'Bearer team-x', 'invalid_api_key' ],
		[ 'Bearer sk-own', 'invalid_api_key' ], [ 'Bearer ' . sha256_hex('team-a'), 'invalid_api_key' ], [ 'Bearer team-a ', 'HTTP trims it' ]) {
		my ($key, $code) = @$_;
		my $r = ask($d, $key, 'one');
		next if $code eq 'HTTP trims it' && is $r->{status}, 200, $code;
		is $r->{status}, 401, 'refused, for a hit too: ' . ($key // 'no key');
		is $r->{json}{error}{code}, $code, $code;
	}
	is $openai->calls, $calls, 'nothing bought';
};

subtest 'limits' => sub {
	my @status = map { ask($d, 'Bearer team-b', 'one')->{status} } 1 .. 12;
	is_deeply \@status, [ (200) x 6, (429) x 6 ], 'a tenth of a minute\'s at once';
	my $r = ask($d, 'Bearer team-b', 'one');
	is $r->{headers}{'retry-after'}, 1, 'and when to come back';
	is $r->{json}{error}{code}, 'rate_limit_exceeded', 'says why';
	is ask($d, 'Bearer team-a', 'one')->{status}, 200, 'the others go on';
};

subtest 'reload' => sub {
	spew($file, sha256_hex('team-d') . "\n" . sha256_hex('team-b') . " rpm=60\n");
	$d->signal('HUP');
	$d->wait_log(qr/client keys: 2/);
	is ask($d, 'Bearer team-d', 'one')->{status}, 200, 'a new key';
	is ask($d, 'Bearer team-a', 'one')->{status}, 401, 'one that was taken away';
	spew($file, "nonsense\n");
	$d->signal('HUP');
	$d->wait_log(qr/CLIENT_KEYS_FILE not reloaded: \Q$file\E:1: a SHA-256 digest/);
	is ask($d, 'Bearer team-d', 'one')->{status}, 200, 'a broken file changes nothing';
};

subtest 'without an own key the caller\'s goes on' => sub {
	spew($file, sha256_hex('sk-caller') . "\n");
	my $forward = gateway(CLIENT_KEYS_FILE => $file);
	is ask($forward, 'Bearer sk-caller', 'two')->{status}, 200, 'served';
	is $openai->stats->{log}[-1]{authorization}, 'Bearer sk-caller', 'on its own account';
};

subtest 'a scope is the caller\'s, also between instances' => sub {
	spew($file, join '', map { sha256_hex("caller-$_") . "\n" } 1, 2);
	mkdir test_path('two');
	my @two = map { daemon('gatewayd', http => 1, rpc => "two/gatewayd.$_.sock", env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', RUN_DIR => test_path('two'),
		CLIENT_KEYS_FILE => $file, OPENAI_API_KEY => 'sk-own', CACHE_SCOPE => 'per-key', GATEWAYD_INSTANCE => $_, GATEWAYD_INSTANCES => 2 }) } 0, 1;
	for my $text (map { "scoped $_" } 1 .. 8) {
		is ask($two[0], 'Bearer caller-1', $text)->{headers}{'x-cache'}, 'MISS', "$text: first";
		is ask($two[1], 'Bearer caller-2', $text)->{headers}{'x-cache'}, 'MISS', 'another caller has its own';
		is ask($two[1], 'Bearer caller-1', $text)->{headers}{'x-cache'}, 'HIT', 'the first one has it from the other instance, too';
	}
	cmp_ok http('GET', $two[1]->url . '/metrics')->{body} =~ /^gatewayd_fetches_total (\d+)/m ? $1 : 0, '>', 0, 'asked of its owner';
};

subtest 'a bad file at the start' => sub {
	for ([ "abc\n", qr/:1: a SHA-256 digest/ ], [ sha256_hex('a') . " rpm=x\n", qr/:1: rpm must be/ ], [ "\n" . sha256_hex('a') . " tpm=5\n", qr/:2: only rpm=N/ ],
		[ 'a' x 600 . "\n", qr/:1: the line is too long/ ]) {
		my ($content, $message) = @$_;
		spew($file, $content);
		my $out = qx{CLIENT_KEYS_FILE=$file PROVIDER=mock STORE=none RUN_DIR=@{[ test_dir() ]} LOG_FORMAT=text @{[ eg_bin('gatewayd') ]} 2>&1 </dev/null};
		is $? >> 8, 78, 'EX_CONFIG';
		like $out, $message, 'names file, line and what is wrong';
	}
};

unlike $d->log, qr/team-|sk-own/, 'no key in the log';
done_testing;
