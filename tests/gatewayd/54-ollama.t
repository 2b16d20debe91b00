#!/usr/bin/env perl

# PROVIDER=ollama and hybrid, against an Ollama and an OpenAI that both count.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $ollama = fake_ollama();
my $openai = fake_openai();
my $gateways = 0;

sub gateway
{
	my (%env) = @_;
	return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $gateways++ . '.sock', env => { STORE => 'none', PROVIDER => 'ollama',
		OLLAMA_BASE_URL => $ollama->url . '/', OLLAMA_MAX_RETRIES => 0, MAX_RETRIES => 0, OPENAI_BASE_URL => $openai->base, %env });
}

sub ask
{
	my ($d, $model, $input, %more) = @_;
	my $key = delete $more{key};
	return http_json($d->url . '/v1/embeddings', { model => $model, input => $input, encoding_format => 'float', %more },
		[ $key ? (Authorization => "Bearer $key") : () ]);
}
sub vectors { return join ' | ', map { "@{ $_->{embedding} }" } @{ $_[0]{json}{data} } }
sub metric { my ($d, $name) = @_; return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef }
# What Ollama itself says.
sub direct
{
	my ($model, @input) = @_;
	return join ' | ', map { "@$_" } @{ http_json($ollama->url . '/api/embed', { model => $model, input => \@input })->{json}{embeddings} };
}

subtest 'vectors and usage' => sub {
	my $d = gateway();
	my $r = ask($d, 'nomic-embed-text', [ 'one two', 'three' ], key => 'sk-secret');
	is $r->{status}, 200, 'served' or diag $r->{body};
	is $r->{json}{usage}{total_tokens}, 3, 'prompt_eval_count';
	is vectors($r), direct('nomic-embed-text', 'one two', 'three'), 'in the order of the inputs';
	my ($call) = @{ $ollama->stats->{log} };
	is $call->{path}, '/api/embed', 'its own API';
	is $call->{authorization}, undef, 'the caller\'s key does not go there';
	is_deeply json_decode($call->{body}), { model => 'nomic-embed-text', input => [ 'one two', 'three' ], truncate => JSON::PP::false },
		'what is asked';
	is ask($d, 'nomic-embed-text', 'three')->{headers}{'x-cache'}, 'HIT', 'and no key is needed; the batch warmed it';
	is scalar @{ ask($d, 'nomic-embed-text', 'three', dimensions => 5)->{json}{data}[0]{embedding} }, 5, 'dimensions';
	is ask($d, 'nomic-embed-text', 'long ' x 101, truncate => JSON::PP::true)->{status}, 200, 'truncate when the caller wants it';
	$ollama->mode(no_usage => 1);
	is ask($d, 'nomic-embed-text', 'uncounted')->{status}, 200, 'no usage is no fault';
	$ollama->mode;
	my $models = http('GET', $d->url . '/v1/models');
	is json_decode($models->{body})->{data}[0]{id}, 'bge-m3:latest', 'its list of models' or diag $models->{body};
	is metric($d, 'circuit_breaker_state{service="ollama"}'), 0, 'its breaker';
	unlike $d->log, qr/sk-secret/, 'no secret in the log';
};

subtest 'errors' => sub {
	$ollama->reset;
	my $d = gateway(OLLAMA_PULL => 'off');
	my $r = ask($d, 'nomic-embed-text', 'long ' x 101);
	is $r->{status}, 400, 'too long is not cut short';
	is $r->{json}{error}{message}, 'the input length exceeds the context length', 'its words in OpenAI\'s shape' or diag $r->{body};
	is ask($d, 'nomic-embed-text', [ 1, 2, 3 ])->{status}, 400, 'token ids';
	$r = ask($d, 'all-minilm', 'x');
	is $r->{status}, 404, 'a model that is not there';
	like $r->{json}{error}{message}, qr/not found/, 'says so';
	is $ollama->stats->{pulls}, 0, 'and is not pulled when that is off';
	for my $bent (qw(fewer text_vector)) {
		$ollama->mode($bent => 1);
		is ask($d, 'nomic-embed-text', "bent $bent")->{status}, 502, $bent;
	}
	$ollama->mode(status => 500);
	is ask($d, 'nomic-embed-text', 'failing')->{status}, 500, 'a failure';
	$ollama->mode;
	is ask($d, 'nomic-embed-text', 'failing')->{headers}{'x-cache'}, 'MISS', 'nothing was kept of it';
};

subtest 'a missing model is pulled' => sub {
	$ollama->reset;
	$ollama->mode(hold_pull => 1);
	my $d = gateway();
	for (1 .. 3) {
		my $r = ask($d, 'all-minilm', "text $_");
		is $r->{status}, 503, 'not yet';
		is $r->{headers}{'retry-after'}, 5, 'Retry-After';
		like $r->{json}{error}{message}, qr/being downloaded/, 'says why';
	}
	wait_for { $ollama->stats->{pulls} == 1 } 'the pull';
	is $ollama->stats->{calls}, 1, 'Ollama is not asked meanwhile';
	is ask($d, 'bge-m3', 'x')->{status}, 200, 'other models are served';
	$ollama->release;
	$ollama->mode;
	wait_for { ask($d, 'all-minilm', 'text 1')->{status} == 200 } 'the model';
	is $ollama->stats->{pulls}, 1, 'pulled once';
	is metric($d, 'circuit_breaker_state{service="ollama"}'), 0, 'no reason for the breaker';

	is ask($d, 'no-such-model', 'x')->{status}, 503, 'one that nobody has';
	wait_for { ask($d, 'no-such-model', 'x')->{status} == 404 } 'the failed pull';
	is ask($d, 'no-such-model', 'y')->{status}, 404, 'stays 404 for a while';
	is $ollama->stats->{pulls}, 2, 'without another pull';
};

subtest 'stopped while pulling' => sub {
	$ollama->reset;
	$ollama->mode(hold_pull => 1);
	my $d = gateway();
	is ask($d, 'all-minilm', 'x')->{status}, 503, 'pulling';
	$d->stop;
	pass 'stopped';
	$ollama->reset;
};

subtest 'hybrid' => sub {
	$_->reset for $ollama, $openai;
	my $d = gateway(PROVIDER => 'hybrid', HYBRID_OLLAMA_MODELS => 'nomic-embed-text, bge-m3',
		HYBRID_EQUIVALENT_MODELS => 'bge-m3=fake-bge, fake-same=nomic-embed-text', CIRCUIT_BREAKER_THRESHOLD => 1000);
	my @key = (key => 'sk-good');
	is ask($d, 'nomic-embed-text', 'x')->{status}, 401, 'a key is needed';
	is ask($d, 'text-embedding-3-small', 'a', @key, dimensions => 8)->{status}, 200, 'not named: OpenAI';
	is vectors(ask($d, 'nomic-embed-text', 'a', @key)), direct('nomic-embed-text', 'a'), 'named: Ollama';
	is $openai->calls, 1, 'each where it belongs';
	is ask($d, 'nomic-embed-text', 'a', @key)->{headers}{'x-cache'}, 'HIT', 'and kept';
	is metric($d, "circuit_breaker_state{service=\"$_\"}"), 0, "the breaker of $_" for qw(openai ollama);

	$ollama->mode(status => 500);
	is ask($d, 'nomic-embed-text', 'b', @key)->{status}, 500, 'not declared equivalent: it fails';
	is $openai->calls, 1, 'and nobody else is asked';
	my $r = ask($d, 'bge-m3', 'b', @key, dimensions => 8);
	is $r->{status}, 200, 'declared equivalent: the other stands in' or diag $r->{body};
	is $openai->stats->{log}[-1]{model}, 'fake-bge', 'under its name there';
	is ask($d, 'bge-m3', 'b', @key, dimensions => 8)->{headers}{'x-cache'}, 'HIT', 'kept under its own name';
	$ollama->mode(status => 400);
	is ask($d, 'bge-m3', 'c', @key)->{status}, 400, 'a 400 is the caller\'s';
	is $openai->calls, 2, 'and not asked elsewhere';
	$ollama->mode;
	$openai->mode(fault => 'reset');
	is vectors(ask($d, 'fake-same', 'd', @key)), direct('nomic-embed-text', 'd'), 'the other way round';
	is ask($d, 'text-embedding-3-small', 'd', @key)->{status}, 503, 'all others fail';
};

subtest 'settings' => sub {
	for ([ HYBRID_OLLAMA_MODELS => 'a=b' ], [ HYBRID_EQUIVALENT_MODELS => '=b' ], [ HYBRID_EQUIVALENT_MODELS => 'a=' ],
		[ OLLAMA_BASE_URL => 'localhost:11434' ], [ HYBRID_OLLAMA_MODELS => join ',', 1 .. 257 ]) {
		my ($name, $value) = @$_;
		local $ENV{$name} = $value;
		local $ENV{PROVIDER} = 'hybrid';
		my $bin = eg_bin('gatewayd');
		my $out = `$bin --check-config 2>&1`;
		is $? >> 8, 78, "refused: $name";
		like $out, qr/$name/, 'named';
	}
};

done_testing;
