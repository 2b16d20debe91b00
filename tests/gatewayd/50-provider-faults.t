#!/usr/bin/env perl

# The provider fails in every way: the caller gets one clear error in bounded time, nothing wrong is kept.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Time::HiRes qw(time);

my $openai = fake_openai();
my $d = daemon('gatewayd', http => 1, rpc => 'first.sock', env => { OPENAI_BASE_URL => $openai->base, STORE_DIR => test_path('cache'),
	OPENAI_TIMEOUT => '800ms', MAX_RETRIES => 0, CIRCUIT_BREAKER_THRESHOLD => 1000 });
my $n = 0;
my $gateways = 0;
sub gateway { return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $gateways++ . '.sock', @_) }

sub ask
{
	my ($gateway, $text, $key) = @_;
	my $start = time;
	my $r = http_json($gateway->url . '/v1/embeddings', { input => $text // 'text ' . $n++, model => 'text-embedding-3-small', dimensions => 8 },
		[ Authorization => 'Bearer ' . ($key // 'sk-good') ]);
	$r->{seconds} = time - $start;
	return $r;
}
sub metric { my ($gateway, $name) = @_; return http('GET', $gateway->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef }

# fault => status, code of our own error (undef: the provider's words)
for (
	[ { fault => 'status', status => 429, headers => { 'Retry-After' => 7 } }, 429 ],
	[ { fault => 'status', status => 400 }, 400 ],
	[ { fault => 'status', status => 404 }, 404 ],
	[ { fault => 'status', status => 500 }, 500 ],
	[ { fault => 'status', status => 503 }, 503 ],
	[ { fault => 'status', status => 301 }, 502, 'provider_broken_answer' ],
	[ { fault => 'status', status => 600 }, 502, 'provider_broken_answer' ],
	[ { fault => 'status', status => 999 }, 502, 'provider_broken_answer' ],
	[ { fault => 'reset' }, 503, 'provider_unreachable' ],
	[ { fault => 'close' }, 503, 'provider_unreachable' ],
	[ { fault => 'reset_body' }, 503, 'provider_unreachable' ],
	[ { fault => 'short' }, 503, 'provider_unreachable' ],
	[ { fault => 'hang' }, 504, 'provider_timeout' ],
	[ { fault => 'drip', drip_ms => 50 }, 504, 'provider_timeout' ],
	(map { [ { fault => $_ }, 502, 'provider_broken_answer' ] } qw(bad_json html empty fewer more duplicate_index unequal no_data
		nan null_value empty_vector text_vector gzip_broken)),
	[ { fault => 'gzip_bomb', bomb_bytes => 16 << 20 }, 502, 'provider_broken_answer' ],
) {
	my ($mode, $status, $code) = @$_;
	my $name = $mode->{fault} . ($mode->{status} // '');
	subtest $name => sub {
		$openai->mode(%$mode);
		my $text = $name =~ /unequal|duplicate/ ? [ "$name 1", "$name 2" ] : "text for $name";
		my $r = ask($d, $text, "sk-for-$name");
		is $r->{status}, $status, 'status' or diag $r->{body};
		ok $r->{json}{error}{message}, 'an error in OpenAI\'s shape';
		is $r->{json}{error}{code}, $code, 'its code' if $code;
		cmp_ok $r->{seconds}, '<', 5, 'in bounded time';
		is $r->{headers}{'retry-after'}, 7, 'Retry-After is passed on' if $mode->{headers};
		like $r->{headers}{'retry-after'}, qr/^\d+$/, 'Retry-After' if $status == 503 || $status == 500;
		like $r->{json}{error}{message}, qr/provider/i, 'says whose fault it is' if $code;
		$openai->mode;
		my $good = ask($d, $text);
		is $good->{status}, 200, 'well again';
		is $good->{headers}{'x-cache'}, 'MISS', 'nothing was kept of the failure';
	};
}

for my $fault (qw(gzip chunked no_usage no_index reversed close_after)) {
	subtest "$fault is no fault" => sub {
		$openai->mode(fault => $fault);
		my $r = http_json($d->url . '/v1/embeddings', { input => [ "$fault 1", "$fault 2" ], model => 'text-embedding-3-small', dimensions => 8 },
			[ Authorization => 'Bearer sk-good' ]);
		is $r->{status}, 200, 'served' or diag $r->{body};
		$openai->mode;
		my $one = ask($d, "$fault 1");
		is $one->{headers}{'x-cache'}, 'HIT', 'kept';
		is_deeply $one->{json}{data}[0]{embedding}, $r->{json}{data}[0]{embedding}, 'in its place';
	};
}

subtest 'retries' => sub {
	my $patient = gateway(env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', OPENAI_TIMEOUT => '10s' });
	for ([ fault => 'status', status => 500 ], [ fault => 'status', status => 429, headers => { 'Retry-After' => 1 } ], [ fault => 'reset', latency_ms => 1 ]) {
		$openai->reset;
		$openai->mode(@$_, times => 2);
		my $r = ask($patient);
		is $r->{status}, 200, "@$_[1 .. 3]: served in the end";
		is $openai->calls, 3, 'at the third try';
		cmp_ok $r->{seconds}, '>=', 2, 'Retry-After was waited for' if grep { $_ eq 'headers' } @$_;
	}
	for my $retries (0, 1, 3) {
		my $exact = gateway(env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', OPENAI_TIMEOUT => '60s', MAX_RETRIES => $retries,
			CIRCUIT_BREAKER_THRESHOLD => 1000 });
		$openai->reset;
		# So that there are kept connections: libcurl asks again by itself when one ends without an answer.
		$openai->mode(latency_ms => 50);
		http_many([ map { { url => $exact->url, method => 'POST', target => '/v1/embeddings', headers => [ Authorization => 'Bearer sk-good' ],
			body => json_encode({ input => "kept $retries $_", model => 'text-embedding-3-small', dimensions => 8 }) } } 1 .. 6 ], connections => 6);
		$openai->reset;
		$openai->mode(fault => 'close');
		is ask($exact)->{status}, 503, "every try fails, MAX_RETRIES=$retries";
		is $openai->calls, 1 + $retries, 'and there were no more than allowed';
		is metric($exact, 'gatewayd_provider_attempts_total'), 6 + 1 + $retries, 'all counted';
		is metric($exact, 'gatewayd_provider_retries_total'), $retries, 'retries too';
	}
	$openai->reset;
	$openai->mode(fault => 'status', status => 401);
	ask($patient);
	is $openai->calls, 1, 'a 401 is not tried again';
	$openai->reset;
	$openai->mode(fault => 'status', status => 429, headers => { 'Retry-After' => 60 });
	my $r = ask($patient);
	is $r->{status}, 429, 'a wait that is too long is left to the caller';
	is $r->{headers}{'retry-after'}, 60, 'who is told how long';
	cmp_ok $r->{seconds}, '<', 5, 'at once';
	$openai->mode;
};

subtest 'breaker' => sub {
	my $d2 = gateway(env => { OPENAI_BASE_URL => $openai->base, STORE => 'none', MAX_RETRIES => 0,
		CIRCUIT_BREAKER_OPEN => '300ms', OPENAI_TIMEOUT => '2s' });
	my $state = sub { metric($d2, 'circuit_breaker_state{service="openai"}') };
	is ask($d2, 'known')->{status}, 200, 'well';
	$openai->reset;
	$openai->mode(fault => 'status', status => 500);
	is ask($d2)->{status}, 500, 'failure' for 1 .. 5;
	is $state->(), 1, 'open';
	my $r = ask($d2);
	is $r->{status}, 503, 'refused at once';
	ok $r->{headers}{'retry-after'}, 'with Retry-After';
	is $openai->calls, 5, 'without a call';
	is ask($d2, 'known')->{status}, 200, 'hits are served';
	# Nobody waits for the answers: only one of these requests is let through, as a probe.
	$openai->mode(fault => 'hang');
	my @asked;
	wait_for {
		push @asked, EG::HTTP->new($d2->url);
		$asked[-1]->send(EG::HTTP::format_request('POST', '/v1/embeddings', [ Authorization => 'Bearer sk-good', 'Content-Type' => 'application/json' ],
			json_encode({ input => 'probe ' . @asked, model => 'text-embedding-3-small', dimensions => 8 })));
		$state->() == 2;
	} 'the breaker to be half-open';
	is $openai->calls, 6, 'half-open: one probe, not more';
	is ask($d2)->{status}, 503, 'others are refused meanwhile';
	wait_for { $state->() == 1 } 'it to open again, since the probe failed';
	$openai->mode;
	wait_for { ask($d2)->{status} == 200 } 'the breaker to let a probe through';
	is $state->(), 0, 'closed';
};

subtest 'provider down' => sub {
	my $socket = listen_tcp();
	my $port = $socket->sockport;
	close $socket;
	my $down = gateway(env => { OPENAI_BASE_URL => "http://127.0.0.1:$port/v1", STORE => 'none' });
	my $r = ask($down);
	is $r->{status}, 503, 'unavailable';
	like $r->{headers}{'retry-after'}, qr/^\d+$/, 'Retry-After';
	is $r->{json}{error}{code}, 'provider_unreachable', 'says why';
	cmp_ok $r->{seconds}, '<', 10, 'in bounded time';
	is http('GET', $down->url . '/readyz')->{status}, 200, 'ready all the same: hits can be served';
};

unlike $d->log, qr/sk-good/, 'no secret in the log';
done_testing;
