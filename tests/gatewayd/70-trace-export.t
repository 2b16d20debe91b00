#!/usr/bin/env perl

# The exporter of traces: samplers, limits, what a collector may answer, and collectors that are dead or hang.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Otlp;

my $otlp = EG::Otlp->new;
my $nobody = listen_tcp(); # nobody accepts: connects, then hangs
my $n = 0;
my $served = '^POST /v1/embeddings$';

sub gatewayd
{
	my (%env) = @_;
	return daemon('gatewayd', http => 1, allow => qr/collector|cannot be exported/,
		env => { PROVIDER => 'mock', STORE => 'none', $otlp->env, %env });
}

# One that costs nothing but itself: a hit and a miss with it at once.
sub ask
{
	my ($d, $traceparent, $text) = @_;
	my @headers = defined $traceparent ? (Traceparent => $traceparent) : ();
	my $r = http_json($d->url . '/v1/embeddings', { model => 'm', input => $text // 'text ' . $n++, dimensions => 4 }, \@headers);
	die "status $r->{status}" if $r->{status} != 200;
	return $r;
}

sub metric
{
	my ($d, $name) = @_;
	return http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

sub dropped { my ($d, $reason) = @_; return metric($d, "trace_spans_dropped_total{reason=\"$reason\"}") }
sub wait_metric { my ($d, $name, $least) = @_; return wait_for { (metric($d, $name) // 0) >= $least } "$name $least" }
sub servers { return grep { $_->{name} =~ $served } $otlp->spans }

sub parent { my ($flags) = @_; return sprintf '00-%032x-00000000000000aa-%s', 0xfeed000 + $n++, $flags }

subtest 'samplers' => sub {
	# sampler, argument => recorded of: a new trace, a sampled one, one that is not
	for my $case ([ '', '', 1, 1, 0 ], [ 'always_on', '', 1, 1, 1 ], [ 'always_off', '', 0, 0, 0 ], [ 'parentbased_always_off', '', 0, 1, 0 ],
		[ 'traceidratio', '0', 0, 0, 0 ], [ 'traceidratio', '1', 1, 1, 1 ], [ 'parentbased_traceidratio', '0', 0, 1, 0 ]) {
		my ($sampler, $arg, @want) = @$case;
		my $before = servers();
		my $d = gatewayd(OTEL_TRACES_SAMPLER => $sampler, OTEL_TRACES_SAMPLER_ARG => $arg);
		for my $traceparent (undef, parent('01'), parent('00')) {
			ask($d, $traceparent);
		}
		$d->stop; # sends what it has
		my @spans = servers();
		my $want = $want[0] + $want[1] + $want[2];
		is scalar(@spans) - $before, $want, ($sampler || 'the default') . " $arg";
	}
	my $d = gatewayd(OTEL_TRACES_SAMPLER => 'traceidratio', OTEL_TRACES_SAMPLER_ARG => '0.5');
	my $before = servers();
	# The smaller half of the ids.
	for my $low (qw(0fffffffffffffff 7ffffff000000000 8000000000000001 fffffffffffffff0)) {
		ask($d, "00-0000000000000007$low-00000000000000aa-00");
	}
	$d->stop;
	my @recorded = servers();
	is join(' ', map { substr $_->{traceId}, 16 } splice @recorded, $before), '0fffffffffffffff 7ffffff000000000', 'half of them, by the id';
};

subtest 'off' => sub {
	my $before = $otlp->exports;
	for my $off ({ OTEL_EXPORTER_OTLP_ENDPOINT => undef }, { OTEL_SDK_DISABLED => 'true' }, { OTEL_TRACES_EXPORTER => 'none' }) {
		my $d = gatewayd(%$off);
		ask($d, parent('01'));
		is metric($d, 'trace_spans_total'), 0, 'nothing is recorded: ' . join ' ', %{ { map { ($_ => $off->{$_} // 'none') } keys %$off } };
		$d->stop;
	}
	is scalar($otlp->exports), $before, 'nothing was sent';
};

subtest 'headers, paths, limits' => sub {
	my $d = gatewayd(
		OTEL_EXPORTER_OTLP_ENDPOINT => undef, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT => $otlp->url . '/v1/traces',
		OTEL_EXPORTER_OTLP_HEADERS => 'X-Tenant=a%20b, x-other=2', OTEL_SERVICE_NAME => 'named',
		OTEL_RESOURCE_ATTRIBUTES => 'service.name=lost,k=first,k=last', OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT => 3,
		OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT => 6);
	ask($d);
	$d->stop;
	my $last = ($otlp->exports)[-1];
	is_deeply [ @{ $last->{headers} }{qw(x-tenant x-other content-type)} ], [ 'a b', '2', 'application/json' ], 'headers';
	is $last->{schema}, undef, 'as the schema has it';
	my ($span) = (servers())[-1];
	is $span->{resource}{'service.name'}, 'named', 'the name';
	is $span->{resource}{k}, 'last', 'a name once';
	is scalar keys %{ $span->{attributes} }, 3, 'as many attributes as may be';
	is $span->{attributes}{'url.path'}, '/v1/em', 'of that length';
	cmp_ok $span->{droppedAttributesCount}, '>', 3, 'the others are counted';
	for my $wrong ([ OTEL_EXPORTER_OTLP_PROTOCOL => 'http/protobuf', qr/http\/json/ ], [ OTEL_TRACES_SAMPLER => 'sometimes', qr/always_on/ ],
		[ OTEL_TRACES_SAMPLER_ARG => '2', qr/0.*1/ ], [ OTEL_EXPORTER_OTLP_HEADERS => 'novalue', qr/name=value/ ],
		[ OTEL_EXPORTER_OTLP_ENDPOINT => 'localhost:4318', qr/http/ ]) {
		my ($name, $value, $says) = @$wrong;
		local %ENV = (%ENV, RUN_DIR => test_dir(), PROVIDER => 'mock', $name => $value);
		my $out = qx{@{[ eg_bin('gatewayd') ]} --check-config 2>&1};
		is $? >> 8, 78, "$name=$value is refused";
		like $out, qr/$name.*$says/, 'by name';
	}
};

subtest 'answers of a collector' => sub {
	my $d = gatewayd();
	my $spans = sub { metric($d, 'trace_spans_exported_total') };
	$otlp->mode(body => { partialSuccess => { rejectedSpans => '1', errorMessage => 'one is odd' } });
	ask($d);
	wait_metric($d, 'trace_spans_dropped_total{reason="rejected"}', 1);
	is metric($d, 'trace_exports_total{result="partial"}'), 1, 'partial success';
	like $d->log, qr/one is odd/, 'and its words in the log';
	cmp_ok $spans->(), '>', 0, 'the others count as exported';

	$otlp->mode(status => 503, headers => { 'Retry-After' => '0' });
	ask($d);
	wait_metric($d, 'trace_exports_total{result="retry"}', 1);
	my $before = servers();
	$otlp->mode;
	wait_for { servers() == $before + 1 } 'the batch again';
	pass 'a 503 is tried again';

	$otlp->mode(status => 503, headers => { 'Retry-After' => '60' });
	ask($d);
	wait_metric($d, 'trace_spans_dropped_total{reason="failed"}', 3);
	pass 'not when it is to come back after OTEL_BSP_EXPORT_TIMEOUT';
	$otlp->mode(status => 400);
	ask($d);
	wait_metric($d, 'trace_spans_dropped_total{reason="refused"}', 3);
	pass 'a 400 is final';
	$otlp->mode(body => [ 'no', { object => 'at all' } ]);
	my $sent = $spans->();
	ask($d);
	wait_for { $spans->() > $sent } 'an odd answer';
	$otlp->mode;
	my $total = metric($d, 'trace_spans_total');
	wait_for {
		my $sum = $spans->();
		$sum += dropped($d, $_) for qw(queue_full too_many too_large failed refused rejected stopped);
		$sum == metric($d, 'trace_spans_total');
	} 'all spans accounted for';
	pass 'every span is exported or counted as dropped';
	$d->stop;
};

subtest 'a dead collector' => sub {
	for my $dead ([ 'hangs', 'http://127.0.0.1:' . $nobody->sockport ], [ 'refuses', 'http://127.0.0.1:1' ]) {
		my ($how, $url) = @$dead;
		my $d = gatewayd(OTEL_EXPORTER_OTLP_ENDPOINT => $url, OTEL_BSP_MAX_QUEUE_SIZE => 100, OTEL_BSP_MAX_EXPORT_BATCH_SIZE => 50);
		ask($d, undef, 'same');
		my $rss = rss_kb($d->pid);
		my @r = http_many([ map { { url => $d->url, method => 'POST', target => '/v1/embeddings',
			headers => [ 'Content-Type' => 'application/json' ], body => '{"model":"m","input":"same","dimensions":4}' } } 1 .. 2000 ], connections => 10);
		is scalar(grep { $_->{status} == 200 } @r), 2000, "one that $how: all is served";
		cmp_ok dropped($d, 'queue_full'), '>', 3000, 'spans beyond the queue are dropped and counted';
		cmp_ok metric($d, 'trace_spans_queued'), '<=', 150, 'the queue has its bound';
		cmp_ok rss_kb($d->pid) - $rss, '<', 4096, 'and so has the memory' if ($ENV{EG_BIN} // '') !~ /sanitize/;
		cmp_ok metric($d, 'loop_turn_cpu_max_seconds'), '<', 0.1, 'no turn of the loop is long';
		is scalar(() = $d->log =~ /traces cannot be exported/g) <= 1, 1, 'one line at most';
		my $began = time;
		$d->stop;
		cmp_ok time - $began, '<=', 3, 'nor does it hold the end up';
	}
};

subtest 'sent before the end' => sub {
	my $d = gatewayd(OTEL_BSP_SCHEDULE_DELAY => '1h');
	my $before = servers();
	for my $time (1 .. 3) {
		ask($d);
	}
	is servers() - $before, 0, 'not yet';
	$d->stop;
	is servers() - $before, 3, 'on SIGTERM';
};

# What the last export of metrics says of each series, by name and labels.
sub exported_metrics
{
	my ($last) = reverse grep { $_->{path} eq '/v1/metrics' && $_->{status} == 200 } $otlp->exports;
	my %value;
	for my $metric (map { @{ $_->{metrics} } } map { @{ $_->{scopeMetrics} } } @{ $last->{body}{resourceMetrics} }) {
		my ($data) = grep { ref } @{$metric}{qw(sum gauge histogram)};
		for my $point (@{ $data->{dataPoints} }) {
			my $labels = join ',', map { qq($_->{key}="$_->{value}{stringValue}") } @{ $point->{attributes} // [] };
			$value{ $metric->{name} . ($labels ne '' ? "{$labels}" : '') } = { %$point, unit => $metric->{unit}, kind => $data };
		}
	}
	return %value;
}

subtest 'metrics' => sub {
	my $d = gatewayd(OTEL_METRICS_EXPORTER => 'otlp', OTEL_METRIC_EXPORT_INTERVAL => '50', OTEL_TRACES_EXPORTER => 'none');
	ask($d, undef, 'counted') for my @times = 1 .. 3;
	wait_metric($d, 'otlp_metric_exports_total{result="ok"}', 2);
	my $page = http('GET', $d->url . '/metrics')->{body};
	$d->stop; # and the last ones at the end
	my %value = exported_metrics();
	is $value{'gatewayd_requests_total{result="hit",status="200"}'}{asDouble}, 2, 'a counter';
	is $value{'gatewayd_requests_total{result="hit",status="200"}'}{kind}{aggregationTemporality}, 2, 'cumulative';
	ok $value{'gatewayd_requests_total{result="hit",status="200"}'}{kind}{isMonotonic}, 'that only grows';
	is $value{gatewayd_cache_budget_bytes}{unit}, 'By', 'a gauge has its unit';
	my $histogram = $value{'gatewayd_request_duration_seconds{result="hit"}'};
	is $histogram->{count}, 2, 'a histogram';
	my $sum = 0;
	$sum += $_ for @{ $histogram->{bucketCounts} };
	is $sum, 2, 'whose buckets add up';
	is @{ $histogram->{bucketCounts} }, @{ $histogram->{explicitBounds} } + 1, 'one more than bounds';
	my @missing = grep { !exists $value{$_} } map { /^(?!#)(\S+(?:\{.*\})?) \S+$/ && $1 !~ /_(?:bucket|sum|count)\b/ ? $1 : () } split /\n/, $page;
	is "@missing", '', 'all that /metrics has';
	my $dead = gatewayd(OTEL_METRICS_EXPORTER => 'otlp', OTEL_METRIC_EXPORT_INTERVAL => '20', OTEL_EXPORTER_OTLP_ENDPOINT => 'http://127.0.0.1:1');
	wait_metric($dead, 'otlp_metric_exports_total{result="failed"}', 3);
	ask($dead);
	is scalar(() = $dead->log =~ /metrics cannot be exported/g), 1, 'nobody takes them: one line a minute';
};

is join("\n", grep { defined } map { $_->{schema} } $otlp->exports), '', 'all as the schema has it';
done_testing;
