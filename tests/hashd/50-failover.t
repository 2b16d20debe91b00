#!/usr/bin/env perl

# A gatewayd that dies, hangs, is not there, breaks off, or talks nonsense; and a client that leaves.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my @gatewayd = map { fake_gatewayd($_) } 0, 1;
my $hashd = daemon('hashd', http => 1, env => { GATEWAYD_INSTANCES => 2 });

sub up
{
	my ($d, $n) = @_;
	wait_for { (() = http('GET', $d->url . '/metrics')->{body} =~ /^hashd_backend_up\{[^}]*\} 1$/mg) == $n } "$n gatewayd up";
	return;
}

sub metric
{
	my ($d, $name) = @_;
	return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

# A body whose first choice is that instance.
sub body_for
{
	my ($n) = @_;
	for my $i (1 .. 1000) {
		my $r = http('POST', $hashd->url . '/v1/embeddings', [], "for $i");
		return "for $i" if json_decode($r->{body})->{instance} eq "gatewayd.$n";
	}
	die "no body for gatewayd.$n";
}

sub embed { my ($d, $body, $target) = @_; return http('POST', $d->url . ($target // '/v1/embeddings'), [], $body) }

up($hashd, 2);
my $for0 = body_for(0);

subtest 'lost before it answered: asked once more elsewhere' => sub {
	for my $q ([ 'POST', '/v1/embeddings' ], [ 'POST', '/openai/v1/embeddings?x' ]) {
		$gatewayd[0]->mode(drop => JSON::PP::true, times => 1);
		my $r = embed($hashd, $for0, $q->[1]);
		is $r->{status}, 200, "@$q is answered";
		is json_decode($r->{body})->{instance}, 'gatewayd.1', 'by the other one';
		up($hashd, 2);
	}
	cmp_ok metric($hashd, 'hashd_failovers_total{backend="gatewayd.0"}'), '>=', 2, 'counted';
	cmp_ok metric($hashd, 'hashd_backend_request_duration_seconds_count{backend="gatewayd.0",result="failed"}'), '>=', 2, 'as failures of that instance';
	cmp_ok metric($hashd, 'hashd_backend_request_duration_seconds_count{backend="gatewayd.1",result="ok"}'), '>=', 2, 'and answers of the other';
	# Large bodies are sent again from the start.
	my $large = 'L' x 3_000_000;
	$_->mode(drop => JSON::PP::true, times => 1) for $gatewayd[0];
	my ($first) = map { json_decode(embed($hashd, "$large$_")->{body}) } 1;
	is $first->{body_len}, 3_000_001, 'a large body';
	up($hashd, 2);
	$gatewayd[0]->mode;
};

subtest 'what may not be asked twice' => sub {
	$gatewayd[0]->mode(drop => JSON::PP::true, times => 1);
	my $r = embed($hashd, $for0, '/v1/chat/completions');
	is $r->{status}, 502, 'chat is not asked again';
	is $r->{headers}{'retry-after'}, 1, 'Retry-After';
	is json_decode($r->{body})->{error}{type}, 'server_error', 'OpenAI-shaped';
	up($hashd, 2);
	$_->mode(drop => JSON::PP::true, times => 1) for @gatewayd;
	is embed($hashd, $for0)->{status}, 502, 'nor is anything a third time';
	$_->mode for @gatewayd;
	up($hashd, 2);
};

subtest 'killed under load' => sub {
	my $load = sub {
		my ($n) = @_;
		return http_many([ map { { url => $hashd->url, method => 'POST', target => '/v1/embeddings', body => "load $_" } } 1 .. $n ],
			connections => 50, on_done => sub { $_[0] == $n / 4 and $gatewayd[0]->kill9 });
	};
	my @r = $load->(2000);
	is scalar(grep { $_->{status} == 200 } @r), 2000, 'nobody notices';
	my ($slowest) = sort { $b <=> $a } map { $_->{ms} } @r;
	cmp_ok $slowest, '<', 1000, 'nobody waits for a second';
	$gatewayd[0]->start;
	my $start = time;
	wait_for { json_decode(embed($hashd, $for0)->{body})->{instance} eq 'gatewayd.0' } 'it to serve its keys again';
	cmp_ok time - $start, '<=', 2, 'soon';
};

subtest 'stopped, not dead' => sub {
	my $d = daemon('hashd', http => 1, env => { GATEWAYD_INSTANCES => 2, HASHD_PING_INTERVAL => '100ms', HASHD_PING_TIMEOUT => '200ms' });
	up($d, 2);
	$gatewayd[0]->signal('STOP');
	my @r = http_many([ map { { url => $d->url, method => 'POST', target => '/v1/embeddings', body => "hang $_" } } 1 .. 100 ],
		connections => 100);
	is scalar(grep { $_->{status} == 200 } @r), 100, 'all answered, by the other one';
	up($d, 1);
	my $failovers = metric($d, 'hashd_failovers_total{backend="gatewayd.0"}');
	cmp_ok $failovers, '>', 0, 'counted';
	is embed($d, $for0)->{status}, 200, 'new requests';
	is metric($d, 'hashd_failovers_total{backend="gatewayd.0"}'), $failovers, 'do not try it';
	my $new = daemon('hashd', http => 1, env => { GATEWAYD_INSTANCES => 2 });
	up($new, 1);
	is json_decode(embed($new, $for0)->{body})->{instance}, 'gatewayd.1', 'one that connects and says nothing is not used';
	$gatewayd[0]->signal('CONT');
	up($d, 2);
	up($new, 2);
	is json_decode(embed($d, $for0)->{body})->{instance}, 'gatewayd.0', 'back when it answers';
	up($hashd, 2);
};

subtest 'about to stop' => sub {
	my $d = daemon('hashd', http => 1, env => { GATEWAYD_INSTANCES => 2, HASHD_PING_INTERVAL => '50ms' });
	up($d, 2);
	my $requests = $gatewayd[0]->counters->{requests};
	$gatewayd[0]->mode(hold => JSON::PP::true);
	my $c = EG::HTTP->new($d->url);
	$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', [], $for0));
	$gatewayd[0]->wait(requests => $requests + 1);
	$gatewayd[0]->mode(not_ready => JSON::PP::true);
	up($d, 1);
	is json_decode(embed($d, $for0)->{body})->{instance}, 'gatewayd.1', 'new requests go elsewhere';
	my $connections = $gatewayd[0]->counters->{connections};
	$gatewayd[0]->control('_release');
	is json_decode($c->response->{body})->{instance}, 'gatewayd.0', 'those it has are answered';
	# One connection for each control call; more means that hashd hung up and came again.
	wait_for { $gatewayd[0]->counters->{connections} > ($connections += 1) } 'hashd to hang up when idle';
	$gatewayd[1]->mode(not_ready => JSON::PP::true);
	wait_for { my $r = embed($d, $for0); $r->{status} == 200 && json_decode($r->{body})->{instance} eq 'gatewayd.0' }
		'it to be used when there is no better one';
	$_->mode for @gatewayd;
	up($d, 2);
	up($hashd, 2);
};

subtest 'nobody up' => sub {
	my $d = daemon('hashd', http => 1, env => { HASHD_BACKENDS => test_path('nothing.sock'), HASHD_BACKEND_WAIT => '100ms' });
	my ($r) = http_many([ { url => $d->url, method => 'POST', target => '/v1/embeddings', body => 'x' } ]);
	is $r->{status}, 503, 'status';
	is $r->{headers}{'retry-after'}, 1, 'with Retry-After';
	is json_decode($r->{body})->{error}{code}, 'gateway_unavailable', 'OpenAI-shaped';
	cmp_ok $r->{ms}, '>=', 95, 'after the wait';
	cmp_ok $r->{ms}, '<', 3000, 'and no longer';
	is http('GET', $d->url . '/readyz')->{status}, 200, 'readyz is about hashd itself';
	my (undef, $error) = $d->rpc->try_call('request', [ 'GET', '/v1/models', [], mp_bin('') ]);
	is $error->[0], 5, 'RPC: failed';

	my $patient = daemon('hashd', http => 1, env => { HASHD_BACKENDS => test_path('gatewayd.7.sock'), HASHD_BACKEND_WAIT => '30s' });
	my $pid = fork // die;
	if (!$pid) {
		my @r = http_many([ map { { url => $patient->url, method => 'POST', target => '/v1/embeddings', body => "w$_" } } 1 .. 20 ]);
		POSIX::_exit(scalar grep { $_->{status} != 200 } @r);
	}
	wait_for { metric($patient, 'hashd_requests_waiting') == 20 } 'requests to wait';
	my $late = fake_gatewayd(7);
	waitpid $pid, 0;
	is $? >> 8, 0, 'those that wait are served when one comes up';
};

subtest 'too slow' => sub {
	my $d = daemon('hashd', http => 1, env => { GATEWAYD_INSTANCES => 2, HASHD_REQUEST_TIMEOUT => '200ms' });
	up($d, 2);
	my $cancels = $gatewayd[0]->counters->{cancels};
	$gatewayd[0]->mode(hang => JSON::PP::true, times => 1);
	my ($r) = http_many([ { url => $d->url, method => 'POST', target => '/v1/embeddings', body => $for0 } ]);
	is $r->{status}, 504, 'status';
	cmp_ok $r->{ms}, '>=', 195, 'after the deadline';
	is json_decode($r->{body})->{error}{code}, 'gateway_timeout', 'OpenAI-shaped';
	$gatewayd[0]->wait(cancels => $cancels + 1);
	pass 'gatewayd is told';
};

subtest 'broken off in the middle' => sub {
	for my $then (qw(cancel close)) {
		for my $unknown (JSON::PP::true, JSON::PP::false) {
			$gatewayd[0]->mode(body_bytes => 200_000, stop_after => 100_000, then => $then, times => 1, unknown_length => $unknown);
			my ($r) = http_many([ { url => $hashd->url, method => 'POST', target => '/v1/embeddings', body => $for0 } ]);
			is $r->{complete}, 0, "$then: the client sees that something is missing";
			up($hashd, 2);
		}
	}
};

subtest 'nonsense' => sub {
	my %raw = (
		'not an array' => 'c0', 'a string' => 'a3616263', 'no status' => '90', 'a bad status' => '91cd0400', 'status 100' => '9164',
		'headers of a wrong type' => '92ccc8a161', 'a header without value' => '92ccc89191a161',
		'a bad header name' => '93ccc89192a2613ac400c400', 'a header value with a line end' => '93ccc89192a161a3610a62c400',
	);
	for (sort keys %raw) {
		$gatewayd[0]->mode(raw => $raw{$_}, times => 1);
		is embed($hashd, $for0)->{status}, 502, $_;
	}
	my %errors = (3 => 503, 5 => 502, 4 => 502, 1 => 502, 99 => 502);
	for (sort keys %errors) {
		$gatewayd[0]->mode(error => [ $_, "secret \"detail\"\n" ], times => 1);
		my $r = embed($hashd, $for0);
		is $r->{status}, $errors{$_}, "RPC error $_";
		unlike $r->{body}, qr/secret/, 'its text is not for the client';
	}
	is embed($hashd, $for0)->{status}, 200, 'and all is well';
};

subtest 'a client that leaves' => sub {
	my $cancels = $gatewayd[0]->counters->{cancels};
	my $requests = $gatewayd[0]->counters->{requests};
	$gatewayd[0]->mode(hang => JSON::PP::true, times => 2);
	for my $how (qw(close reset)) {
		my $c = EG::HTTP->new($hashd->url);
		$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', [], $for0));
		$gatewayd[0]->wait(requests => ++$requests);
		$c->$how;
		$gatewayd[0]->wait(cancels => ++$cancels);
		pass "$how: gatewayd is told";
	}
	$gatewayd[0]->mode(body_bytes => 50 << 20, times => 1);
	my $c = EG::HTTP->new($hashd->url);
	$c->send(EG::HTTP::format_request('POST', '/v1/embeddings', [], $for0));
	$c->read_some(1000);
	$c->reset;
	$gatewayd[0]->wait(cancels => ++$cancels);
	pass 'in the middle of the answer';
	$c = EG::HTTP->new($hashd->url);
	$c->send("POST /v1/embeddings HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" . 'x' x 50_000);
	$c->reset;
	wait_for { metric($hashd, 'hashd_buffered_body_bytes') == 0 } 'its body to be forgotten';
	wait_for { metric($hashd, 'hashd_client_aborts_total') >= 4 } 'aborts to be counted';
	is metric($hashd, 'hashd_requests_in_flight'), 0, 'nothing left';

	$gatewayd[0]->mode(hang => JSON::PP::true, times => 1);
	my $rpc = $hashd->rpc;
	$rpc->start('request', [ 'POST', '/v1/embeddings', [], mp_bin($for0) ]);
	$gatewayd[0]->wait(requests => $gatewayd[0]->counters->{requests});
	wait_for { metric($hashd, 'hashd_requests_in_flight') == 1 } 'the call to be under way';
	$rpc->close;
	$gatewayd[0]->wait(cancels => ++$cancels);
	pass 'a local one';
};

done_testing;
