#!/usr/bin/env perl

# Two and three instances: every element is looked up and bought by its owner, once for the whole pod.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Time::HiRes ();

my $openai = fake_openai();
my $M = 'text-embedding-3-small';
my @KEY = ('Content-Type' => 'application/json', Authorization => 'Bearer sk-good');

sub instances
{
	my ($n, %env) = @_;
	return map { daemon('gatewayd', http => 1, rpc => "gatewayd.$_.sock",
		env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', MAX_RETRIES => 0, CIRCUIT_BREAKER_THRESHOLD => 1000,
			GATEWAYD_INSTANCE => $_, GATEWAYD_INSTANCES => $n, %env }) } 0 .. $n - 1;
}
sub ask
{
	my ($d, $input, %more) = @_;
	my $key = delete $more{key};
	return http_json($d->url . '/v1/embeddings', { input => $input, model => $M, dimensions => 16, %more },
		$key ? [ Authorization => "Bearer $key" ] : \@KEY);
}
sub metric { my ($d, $name) = @_; return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef }
sub total { my ($name, @d) = @_; my $sum = 0; $sum += metric($_, $name) // 0 for @d; return $sum }

my @d = instances(2);

subtest 'one after the other' => sub {
	my @texts = map { "shared $_" } 1 .. 100;
	my $first = ask($d[0], \@texts);
	is $first->{status}, 200, 'answered' or diag $first->{body};
	is $first->{headers}{'x-cache'}, 'MISS', 'all new';
	is $openai->calls, 2, 'one call an instance';
	is $openai->stats->{inputs}, 100, 'each text bought once';
	is $first->{json}{usage}{total_tokens}, 300, 'usage sums exactly';
	my $second = ask($d[1], [ reverse @texts ]);
	is $second->{headers}{'x-cache-hits'}, '100/100', 'the other instance: all hits, without a store';
	is $openai->stats->{inputs}, 100, 'nothing bought';
	is_deeply [ map { $_->{embedding} } reverse @{ $second->{json}{data} } ], [ map { $_->{embedding} } @{ $first->{json}{data} } ],
		'every vector in its place';
	is total('gatewayd_inputs_bought_total', @d), 100, 'counted once';
	cmp_ok metric($_, 'gatewayd_inputs_bought_total'), '>', 25, 'both own some' for @d;
	is total('openai_tokens_used_total{model="text-embedding-3-small",type="prompt"}', @d), 300, 'tokens paid';
	is total('saved_tokens_total{model="text-embedding-3-small"}', @d), 300, 'tokens saved by the second';
	ask($d[1], 'shared 7');
	is ask($d[0], 'shared 7')->{headers}{'x-cache'}, 'HIT', 'alone, too';
};

subtest 'at the same time' => sub {
	$openai->reset;
	$openai->mode(latency_ms => 100);
	my @texts = map { "at once $_" } 0 .. 199;
	my @requests = map { my $n = $_; { url => $d[ $n % 2 ]->url, method => 'POST', target => '/v1/embeddings', headers => \@KEY,
		body => json_encode({ input => [ map { $texts[ ($n * 13 + $_) % 200 ] } 0 .. 99 ], model => $M, dimensions => 16 }) } } 0 .. 39;
	my @r = http_many(\@requests, connections => 40);
	is scalar(grep { $_->{status} == 200 } @r), 40, 'all answered';
	is $openai->stats->{inputs}, 200, 'each text bought once';
	my (%vector, $wrong);
	for my $n (0 .. 39) {
		my $data = json_decode($r[$n]{body})->{data};
		for my $i (0 .. 99) {
			my $v = join ',', @{ $data->[$i]{embedding} };
			$wrong++ if ($vector{ ($n * 13 + $i) % 200 } //= $v) ne $v;
		}
	}
	is $wrong, undef, 'every vector in its place';
};

subtest '1,000 identical misses through both' => sub {
	$openai->reset;
	$openai->mode(latency_ms => 300);
	my $body = json_encode({ input => 'wanted everywhere', model => $M, dimensions => 16 });
	my @r = http_many([ map { { url => $d[ $_ % 2 ]->url, method => 'POST', target => '/v1/embeddings', headers => \@KEY, body => $body } } 1 .. 1000 ],
		connections => 1000);
	is scalar(grep { $_->{status} == 200 } @r), 1000, 'all answered';
	is $openai->calls, 1, 'one provider call';
	$openai->mode;
};

subtest 'large elements and bodies' => sub {
	my @texts = map { "large $_ " . 'x' x 5000 } 1 .. 200;
	my $r = ask($d[0], \@texts, dimensions => 3072, encoding_format => 'base64');
	is $r->{status}, 200, 'a megabyte of texts, three of vectors' or return diag $r->{body};
	my %distinct = map { $_->{embedding} => 1 } @{ $r->{json}{data} };
	is scalar keys %distinct, 200, 'all different';
	is ask($d[1], \@texts, dimensions => 3072, encoding_format => 'base64', user => 'other')->{headers}{'x-cache-hits'}, '200/200', 'from the other side';
};

subtest 'errors of the provider come through' => sub {
	for ([ 401, fault => 'status', status => 401 ], [ 400, fault => 'status', status => 400 ], [ 500, fault => 'status', status => 500 ],
		[ 429, fault => 'status', status => 429, headers => { 'Retry-After' => 70 } ], [ 502, fault => 'bad_json' ]) {
		my ($status, %mode) = @$_;
		$openai->mode(%mode);
		local $KEY[3] = "Bearer sk-$status"; # after a 429 this one has to wait
		for my $d (@d) {
			# A credential that got 429 has to wait: another one for each.
			my $r = ask($d, [ map { "failing $status $_" } 1 .. 20 ], $status == 429 ? (key => 'sk-limited-' . $d->port) : ());
			is $r->{status}, $status, "status $status";
			ok $r->{json}{error}{message}, 'in OpenAI\'s shape';
			ok $r->{headers}{'retry-after'} > 60 && $r->{headers}{'retry-after'} <= 70, 'Retry-After' if $status == 429;
		}
		$openai->mode;
	}
	wait_for { ask($d[0], 'failing 500 1')->{status} == 200 && ask($d[1], 'failing 500 2')->{status} == 200 } 'all to be well again';
	pass 'well again';
};

subtest 'the owner dies' => sub {
	my @texts = map { "orphan $_" } 1 .. 60;
	ask($d[0], \@texts);
	$openai->reset;
	$openai->mode(hold => JSON::PP::true());
	my $c = EG::HTTP->new($d[0]->url);
	my @new = map { "new orphan $_" } 1 .. 60;
	$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', \@KEY, json_encode({ input => \@new, model => $M, dimensions => 16 })));
	$openai->wait(calls => 2);
	$d[1]->kill9;
	$openai->wait(calls => 3);
	$openai->release;
	my $r = $c->response;
	is $r->{status}, 200, 'a request under way is served: bought here';
	is scalar @{ json_decode($r->{body})->{data} }, 60, 'all of it';
	my $start = Time::HiRes::time();
	is scalar(grep { ask($d[0], "after the death $_")->{status} == 200 } 1 .. 40), 40, 'and the next ones';
	cmp_ok Time::HiRes::time() - $start, '<', 2, 'without waiting for the dead one, whose socket still listens';
	cmp_ok metric($d[0], 'gatewayd_fetches_lost_total'), '>=', 1, 'counted';
	$d[1]->start;
	is ask($d[1], \@new)->{status}, 200, 'the other one is back';
	my $fetches = metric($d[0], 'gatewayd_fetches_total');
	my $n = 0;
	wait_for { ask($d[0], [ map { "back again $_ " . $n++ } 1 .. 9 ]); metric($d[0], 'gatewayd_fetches_total') > $fetches } 'the other one to be asked again';
};

subtest 'the owner hangs' => sub {
	$d[1]->signal('STOP');
	my @r = map { ask($d[0], [ map { "hang $_" } 1 .. 20 ]) } 1;
	is $r[0]{status}, 200, 'served all the same';
	$d[1]->signal('CONT');
};

subtest 'a drain waits for nobody' => sub {
	ask($d[0], [ map { "before the drain $_" } 1 .. 20 ]);
	$d[1]->stop;
	pass 'one stops while the other has a connection to it';
	is ask($d[0], [ map { "after the drain $_" } 1 .. 20 ])->{status}, 200, 'the other serves on';
	$_->stop for @d;
};

subtest 'a failure is counted once, where it was bought, by whose fault it is' => sub {
	my @own = instances(2, OPENAI_API_KEY => 'sk-own');
	my $failures = sub { my ($reason) = @_; return total(qq(gatewayd_purchase_failures_total{reason="$reason"}), @own) };
	my ($caller, $provider) = (0, 0);
	for ([ 400, 'caller' ], [ 401, 'caller', 'sk-theirs' ], [ 401, 'provider' ], [ 403, 'provider', 'sk-own' ], [ 404, 'caller' ], [ 413, 'caller' ],
		[ 422, 'caller' ], [ 429, 'provider' ], [ 500, 'provider' ]) {
		my ($status, $reason, $key) = @$_;
		my $bought = total('gatewayd_purchases_total', @own);
		my $fetched = total('gatewayd_fetch_duration_seconds_count{outcome="refused"}', @own);
		$openai->mode(fault => 'status', status => $status);
		my @r = map { http_json($own[0]->url . '/v1/embeddings', { input => "$status $reason $_", model => $M, dimensions => 16 },
			$key ? [ Authorization => "Bearer $key" ] : []) } 1 .. 10;
		is scalar(grep { $_->{status} == $status } @r), 10, "$status, " . ($key // 'no key');
		($reason eq 'caller' ? $caller : $provider) += total('gatewayd_purchases_total', @own) - $bought;
		is $failures->('caller') . ' ' . $failures->('provider'), "$caller $provider", "is the fault of the $reason, each purchase once";
		cmp_ok total('gatewayd_fetch_duration_seconds_count{outcome="refused"}', @own), '>', $fetched, 'calls to the owner have their own count';
	}
	is $caller + $provider, 90, 'all';
	$openai->mode;
	$_->stop for @own;
};

subtest 'three instances with a store, and views that differ' => sub {
	$openai->reset;
	my @three = map { daemon('gatewayd', http => 1, rpc => "gatewayd.$_.sock",
		env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => test_path('cache'), GATEWAYD_INSTANCE => $_, GATEWAYD_INSTANCES => $_ == 2 ? 3 : 2 + $_ % 2 }) } 0 .. 2;
	my @texts = map { "differing $_" } 0 .. 99;
	my @r = http_many([ map { { url => $three[ $_ % 3 ]->url, method => 'POST', target => '/v1/embeddings', headers => \@KEY,
		body => json_encode({ input => \@texts, model => $M, dimensions => 16, user => "u$_" }) } } 0 .. 29 ], connections => 30);
	is scalar(grep { $_->{status} == 200 } @r), 30, 'all answered: nobody waits in a circle';
	cmp_ok $openai->stats->{inputs}, '<=', 300, 'bought at most once an instance';
};

done_testing;
