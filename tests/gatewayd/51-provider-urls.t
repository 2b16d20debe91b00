#!/usr/bin/env perl

# Several base URLs: shared by weight, one down: the next. A credential that the provider told to wait.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Time::HiRes qw(time);

my @openai = (fake_openai(), fake_openai());
my @host = map { $_->base } @openai;
my $n = 0;
my $gateways = 0;

sub gateway
{
	my (%env) = @_;
	return daemon('gatewayd', http => 1, rpc => 'gatewayd.' . $gateways++ . '.sock',
		env => { STORE => 'none', MAX_RETRIES => 0, OPENAI_TIMEOUT => '5s', %env });
}

sub ask
{
	my ($gateway, $key) = @_;
	my $start = time;
	my $r = http_json($gateway->url . '/v1/embeddings', { input => 'text ' . $n++, model => 'text-embedding-3-small', dimensions => 8 },
		[ Authorization => 'Bearer ' . ($key // 'sk-good') ]);
	$r->{seconds} = time - $start;
	return $r;
}
sub metric { my ($gateway, $name) = @_; return http('GET', $gateway->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef }
sub breaker { my ($gateway, $i) = @_; return metric($gateway, "circuit_breaker_state{service=\"openai:$host[$i]\"}") }
sub calls { return join ' ', map { $_->calls } @openai }
sub well { $_->reset for @openai; return }

subtest 'weights' => sub {
	well();
	my $d = gateway(OPENAI_BASE_URL => "$host[0]|3, $host[1]/");
	is ask($d)->{status}, 200, 'served' for 1 .. 8;
	is calls(), '6 2', 'three to one';
	is metric($d, 'gatewayd_provider_retries_total'), 0, 'nothing was tried twice';
};

subtest 'one fails' => sub {
	for ([ fault => 'status', status => 500 ], [ fault => 'status', status => 429 ], [ fault => 'reset' ], [ fault => 'hang' ], [ fault => 'close' ]) {
		well();
		my $d = gateway(OPENAI_BASE_URL => "$host[0] $host[1]|0");
		$openai[0]->mode(@$_);
		my $r = ask($d);
		is $r->{status}, 200, "@$_: the other serves" or diag $r->{body};
		is calls(), '1 1', 'after one try';
		is metric($d, 'gatewayd_provider_retries_total'), 1, 'counted';
	}
	for my $fault (qw(bad_json fewer nan html gzip_broken)) {
		well();
		my $d = gateway(OPENAI_BASE_URL => "$host[0] $host[1]|0", CIRCUIT_BREAKER_THRESHOLD => 1);
		$openai[0]->mode(fault => $fault);
		is ask($d)->{status}, 200, "$fault: the other serves";
		is calls(), '1 1', 'after one try';
		is breaker($d, 0), 1, 'a broken answer counts for the breaker';
		is ask($d)->{status}, 200, 'served again';
		is calls(), '1 2', 'by the other alone';
	}
	well();
	my $both = gateway(OPENAI_BASE_URL => "$host[0] $host[1]|0", MAX_RETRIES => 3);
	$_->mode(fault => 'bad_json') for @openai;
	my $broken = ask($both);
	is $broken->{status}, 502, 'both broken';
	is $broken->{json}{error}{code}, 'provider_broken_answer', 'says so';
	is calls(), '1 1', 'an answer that may be paid for is not asked for again where it came from';
	well();
	my $d = gateway(OPENAI_BASE_URL => "$host[0] $host[1]|0");
	$openai[0]->mode(fault => 'status', status => 400);
	is ask($d)->{status}, 400, 'a 400 is the caller\'s';
	is calls(), '1 0', 'and not tried elsewhere';
};

subtest 'one is down' => sub {
	well();
	my $socket = listen_tcp();
	my $down = 'http://127.0.0.1:' . $socket->sockport . '/v1';
	close $socket;
	my $d = gateway(OPENAI_BASE_URL => "$down|1000, $host[1]", CIRCUIT_BREAKER_THRESHOLD => 2);
	is ask($d)->{status}, 200, 'served' for 1 .. 6;
	is $openai[1]->calls, 6, 'by the other';
	is metric($d, "circuit_breaker_state{service=\"openai:$down\"}"), 1, 'its breaker is open';
	is breaker($d, 1), 0, 'the other\'s is not';
	is metric($d, 'gatewayd_provider_retries_total'), 2, 'then it is left alone';
};

subtest 'all fail' => sub {
	well();
	my $d = gateway(OPENAI_BASE_URL => join(',', @host), CIRCUIT_BREAKER_THRESHOLD => 2, CIRCUIT_BREAKER_OPEN => '300ms', MAX_RETRIES => 1);
	$_->mode(fault => 'status', status => 500) for @openai;
	is ask($d)->{status}, 500, 'the provider\'s words';
	is calls(), '2 2', 'each was tried, and once more after a wait';
	is breaker($d, $_), 1, 'open' for 0, 1;
	my $r = ask($d);
	is $r->{status}, 503, 'refused';
	ok $r->{headers}{'retry-after'}, 'with Retry-After';
	is calls(), '2 2', 'without a call';
	is metric($d, 'gatewayd_provider_refused_total{reason="breaker"}'), 1, 'counted';
	well();
	wait_for { ask($d)->{status} == 200 } 'a probe';
	wait_for { ask($d)->{status} == 200 && !breaker($d, 0) && !breaker($d, 1) } 'both breakers to close';
};

subtest 'a credential that has to wait' => sub {
	well();
	my $d = gateway(OPENAI_BASE_URL => $host[0], CIRCUIT_BREAKER_THRESHOLD => 1);
	$openai[0]->mode(fault => 'status', status => 429, headers => { 'Retry-After' => 30 }, match => 'sk-busy');
	my $first = ask($d, 'sk-busy');
	is $first->{status}, 429, 'told so by the provider';
	my $second = ask($d, 'sk-busy');
	is $second->{status}, 429, 'then by the gateway';
	ok $second->{headers}{'retry-after'} >= 25 && $second->{headers}{'retry-after'} <= 30, 'with the rest of the wait'
		or diag $second->{headers}{'retry-after'};
	is $second->{json}{error}{code}, 'rate_limit_exceeded', 'in OpenAI\'s shape';
	is $openai[0]->calls, 1, 'without a call';
	is ask($d, 'sk-other')->{status}, 200, 'another credential does not wait';
	is metric($d, 'circuit_breaker_state{service="openai"}'), 0, 'the breaker has not heard of it';
	is metric($d, 'gatewayd_provider_refused_total{reason="paused"}'), 1, 'counted';

	well();
	my $two = gateway(OPENAI_BASE_URL => "$host[0] $host[1]|0");
	$openai[0]->mode(fault => 'status', status => 429, headers => { 'Retry-After' => 30 });
	is ask($two)->{status}, 200, 'with two URLs the other serves' for 1 .. 3;
	is calls(), '1 3', 'and the first is left alone';

	well();
	my $short = gateway(OPENAI_BASE_URL => $host[0]);
	$openai[0]->mode(fault => 'status', status => 429, headers => { 'Retry-After' => 1 }, times => 1);
	is ask($short)->{status}, 429, 'a short wait';
	wait_for { ask($short)->{status} == 200 } 'its end';
};

subtest 'settings' => sub {
	{
		spew(test_path('broken'), "sk-a\nb\n");
		local $ENV{OPENAI_API_KEY_FILE} = test_path('broken');
		local $ENV{OPENAI_API_KEY};
		delete $ENV{OPENAI_API_KEY};
		my $out = `@{[ eg_bin('gatewayd') ]} --check-config 2>&1`;
		is $? >> 8, 78, 'a key with a line break';
		like $out, qr/OPENAI_API_KEY has a line break/, 'says why';
	}
	for ([ 'ftp://a' => 'http' ], [ 'http://a|x' => 'whole number' ], [ 'http://a|1001' => 'over 1000' ], [ 'http://a|' => 'missing' ],
		[ 'http://u:secret@a' => 'no user' ], [ 'http://a http://a/' => 'twice' ], [ ' , ' => 'no URL' ],
		[ join(' ', map { "http://a$_" } 1 .. 17) => 'more than 16' ]) {
		my ($value, $says) = @$_;
		local $ENV{OPENAI_BASE_URL} = $value;
		my $bin = eg_bin('gatewayd');
		my $out = `$bin --check-config 2>&1`;
		is $? >> 8, 78, "refused: $value";
		like $out, qr/OPENAI_BASE_URL.*$says/, 'says why';
		unlike $out, qr/secret/, 'and nothing secret';
	}
};

done_testing;
