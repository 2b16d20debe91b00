#!/usr/bin/env perl

# kill -9 of a gatewayd under load; the provider away; other vectors in the same store.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;

my $pod = EG::Pod->new(env => { MAX_RETRIES => 1, CIRCUIT_BREAKER_OPEN => '1s' });
my $openai = $pod->openai;
my @key = (Authorization => 'Bearer sk-pod');

sub load
{
	my ($n, %o) = @_;
	return http_many([ map { { url => $pod->url, method => 'POST', target => '/v1/embeddings', headers => \@key,
		body => json_encode({ model => 'text-embedding-3-small', dimensions => 16, input => 'text ' . $_ % 200 }) } } 1 .. $n ],
		connections => 32, %o);
}

subtest 'kill -9 under load' => sub {
	is scalar(grep { $_->{status} == 200 } load(400)), 400, 'warm';
	for my $i (0, 1) {
		my @r = load(3000, on_done => sub {
			$pod->gatewayd($i)->kill9 if $_[0] == 500;
			$pod->gatewayd($i)->start if $_[0] == 1500;
		});
		is scalar(grep { $_->{status} == 200 } @r), 3000, "gatewayd.$i: nobody notices";
		my ($slowest) = sort { $b <=> $a } map { $_->{ms} } @r;
		cmp_ok $slowest, '<', 1000, "gatewayd.$i: nobody waits for a second";
		$pod->wait_up;
	}
};

subtest 'both gone' => sub {
	$_->kill9 for $pod->gatewayds;
	my $r = $pod->embed('text 1');
	is $r->{status}, 503, 'refused';
	is $r->{headers}{'retry-after'}, 1, 'with Retry-After';
	$_->start for $pod->gatewayds;
	$pod->wait_up;
	is $pod->embed('text 1', dimensions => 16)->{headers}{'x-cache'}, 'HIT', 'and back, from the store';
};

subtest 'the provider is away' => sub {
	$openai->mode(fault => 'reset');
	my $r = $pod->embed('never seen');
	is $r->{status}, 503, 'refused';
	like $r->{headers}{'retry-after'}, qr/^\d+$/, 'with Retry-After';
	is ref $r->{json}{error}, 'HASH', 'OpenAI-shaped';
	is $pod->embed('text 1', dimensions => 16)->{headers}{'x-cache'}, 'HIT', 'what is known is still served';
	$openai->mode;
	wait_for { $pod->embed('never seen')->{status} == 200 } 'purchases to go on';
	pass 'and it comes back';
};

subtest 'mock vectors never meet real ones' => sub {
	$pod->restart(PROVIDER => 'mock');
	my $mock = $pod->embed('who is it');
	is $mock->{status}, 200, 'mock answers';
	is $mock->{headers}{'x-embedding-provider'}, 'mock', 'and says so';
	is $pod->embed('who is it')->{headers}{'x-cache'}, 'HIT', 'HIT';
	wait_for { glob test_path('cache') . '/mock/embeddings/*' } 'it to be stored';
	$openai->reset;
	$pod->restart(PROVIDER => 'openai');
	my $real = $pod->embed('who is it');
	is $real->{headers}{'x-cache'}, 'MISS', 'MISS with the real provider';
	is $openai->calls, 1, 'bought';
	isnt json_encode($real->{json}{data}), json_encode($mock->{json}{data}), 'another vector';
};

done_testing;
