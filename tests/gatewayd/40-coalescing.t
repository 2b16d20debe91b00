#!/usr/bin/env perl

# Many want the same text at the same time: it is bought once, and nobody harms anybody.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $openai = fake_openai();
my $d = daemon('gatewayd', http => 1, env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => test_path('cache') });
my $M = 'text-embedding-3-small';

sub request
{
	my ($input, $key) = @_;
	return { url => $d->url, method => 'POST', target => '/v1/embeddings',
		headers => [ 'Content-Type' => 'application/json', Authorization => 'Bearer ' . ($key // 'sk-good') ],
		body => json_encode({ input => $input, model => $M, dimensions => 8 }) };
}
sub count { my %n; $n{$_}++ for @_; return \%n }

subtest '1,000 identical misses' => sub {
	$openai->mode(latency_ms => 300);
	my @r = http_many([ map { request('wanted by all') } 1 .. 1000 ], connections => 1000);
	is_deeply count(map { $_->{status} } @r), { 200 => 1000 }, 'all answered';
	is $openai->calls, 1, 'one provider call';
	my %body = map { $_->{body} => 1 } @r;
	is scalar keys %body, 1, 'one answer';
	my $by = count(map { $_->{headers}{'x-cache'} } @r);
	is $by->{MISS}, 1, 'one paid';
	is $by->{MISS} + ($by->{COALESCED} // 0) + ($by->{HIT} // 0), 1000, 'the others did not';
};

subtest 'overlapping lists' => sub {
	$openai->reset;
	$openai->mode(latency_ms => 100);
	my @texts = map { "overlap $_" } 0 .. 99;
	my @lists = map { my $from = $_; [ map { $texts[ ($from * 7 + $_) % 100 ] } 0 .. 49 ] } 0 .. 39;
	my @r = http_many([ map { request($_) } @lists ], connections => 40);
	is_deeply count(map { $_->{status} } @r), { 200 => 40 }, 'all answered';
	is $openai->stats->{inputs}, 100, 'every text bought once';
	my (%vector, $wrong);
	for my $i (0 .. $#lists) {
		my $data = json_decode($r[$i]{body})->{data};
		for my $j (0 .. $#{ $lists[$i] }) {
			my $v = join ',', @{ $data->[$j]{embedding} };
			$wrong++ if ($vector{ $lists[$i][$j] } //= $v) ne $v;
		}
	}
	is $wrong, undef, 'every vector in its place';
	my %distinct = reverse %vector;
	is scalar keys %distinct, 100, 'and each its own';
};

subtest 'a bad key harms only itself' => sub {
	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	my $bad = EG::HTTP->new($d->url);
	my $r = request('contested');
	$bad->send(EG::HTTP::format_request('POST', '/v1/embeddings', [ Authorization => 'Bearer sk-bad', 'Content-Type' => 'application/json' ], $r->{body}));
	$openai->wait(calls => 1);
	my @good = map { EG::HTTP->new($d->url) } 1 .. 5;
	$_->send(EG::HTTP::format_request('POST', '/v1/embeddings', [ Authorization => 'Bearer sk-good', 'Content-Type' => 'application/json' ], $r->{body})) for @good;
	$openai->release(1);
	is $bad->response->{status}, 401, 'its own 401';
	$openai->release;
	is_deeply count(map { $_->response->{status} } @good), { 200 => 5 }, 'the others are served';
};

subtest 'the client that pays leaves' => sub {
	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	my $r = request('left behind');
	my $bytes = EG::HTTP::format_request('POST', '/v1/embeddings', $r->{headers}, $r->{body});
	my $payer = EG::HTTP->new($d->url);
	$payer->send($bytes);
	$openai->wait(calls => 1);
	my $other = EG::HTTP->new($d->url);
	$other->send($bytes);
	$payer->close;
	$openai->release;
	is $other->response->{status}, 200, 'the other one is served';
	is $openai->calls, 1, 'by the call that was paid for';

	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	$r = request('left alone');
	$payer = EG::HTTP->new($d->url);
	$payer->send(EG::HTTP::format_request('POST', '/v1/embeddings', $r->{headers}, $r->{body}));
	$openai->wait(calls => 1);
	$payer->close;
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_requests_total\{result="gone",status="499"\} [1-9]/m } 'the end to be seen';
	$openai->release;
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_flights 0$/m } 'the purchase';
	is http_json($d->url . '/v1/embeddings', $r->{body}, $r->{headers})->{headers}{'x-cache'}, 'HIT', 'what was paid for is kept';
	is $openai->calls, 1, 'and not bought again';
};

subtest 'repeated texts stall nobody' => sub {
	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	my $body = request([ ('the same again') x 16_000 ])->{body};
	my @headers = @{ request('x')->{headers} };
	my @c = map { EG::HTTP->new($d->url) } 1, 2;
	$_->send(EG::HTTP::format_request('POST', '/v1/embeddings', \@headers, $body)) for @c;
	$openai->wait(calls => 1);
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_flights 1$/m } 'one flight';
	my ($before) = http('GET', $d->url . '/metrics')->{body} =~ /^process_cpu_seconds_total (\S+)/m;
	$c[1]->reset;
	my ($after) = http('GET', $d->url . '/metrics')->{body} =~ /^process_cpu_seconds_total (\S+)/m;
	cmp_ok $after - $before, '<', 0.5, 'one that leaves costs little: ' . ($after - $before) . ' s';
	$openai->release;
	my $data = json_decode($c[0]->response->{body})->{data};
	is scalar @$data, 16_000, 'the other one is served';
	is_deeply $data->[15_999]{embedding}, $data->[0]{embedding}, 'all the same';
	is $openai->stats->{inputs}, 1, 'bought once';
};

done_testing;
