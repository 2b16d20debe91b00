#!/usr/bin/env perl

# A real Prometheus scrapes the merged page, as OpenMetrics and as classic text, and its queries give back what
# the targets sent. promtool and python3-prometheus-client read the same pages.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use IO::Socket::INET;

my ($prometheus) = grep { -x } map { "$_/prometheus" } split /:/, $ENV{PATH};
my ($promtool) = grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH};
plan skip_all => 'prometheus (package prometheus) is not installed' if !$prometheus || !$promtool;
my $python = '/usr/bin/python3';
my $has_python = -x $python && system("$python -c 'import prometheus_client.openmetrics.parser' 2>/dev/null") == 0;

my %pages = (
	text => [ 'text/plain; version=0.0.4', <<'PAGE' ],
# HELP app_requests_total Requests \\ by \n code.
# TYPE app_requests_total counter
app_requests_total{code="200",path="/a\\b\"c\n"} 1027
app_requests_total{code="500",path="/"} 3
# HELP app_requests_created When that began.
# TYPE app_requests_created gauge
app_requests_created{code="200",path="/a\\b\"c\n"} 1700000000
app_requests_created{code="500",path="/"} 1700000001
# HELP app_hits A counter without a suffix.
# TYPE app_hits counter
app_hits 7
# HELP app_heat Degrees.
# TYPE app_heat gauge
app_heat{where="in"} -1.5
app_heat{where="out"} NaN
app_heat{where="sun"} +Inf
# HELP app_wait_seconds Waiting.
# TYPE app_wait_seconds histogram
app_wait_seconds_bucket{le="0.5"} 3
app_wait_seconds_bucket{le="10"} 5
app_wait_seconds_bucket{le="+Inf"} 8
app_wait_seconds_sum 12.5
app_wait_seconds_count 8
# HELP app_size_bytes Sizes.
# TYPE app_size_bytes summary
app_size_bytes{quantile="0.5"} 12
app_size_bytes{quantile="0.99"} 99
app_size_bytes_sum 111
app_size_bytes_count 2
PAGE
	openmetrics => [ 'application/openmetrics-text; version=1.0.0; charset=utf-8', <<'PAGE' ],
# HELP app_requests Requests.
# TYPE app_requests counter
app_requests_total{code="200",path="/om"} 5 # {trace_id="abc"} 1 1700000000
app_requests_created{code="200",path="/om"} 1700000002
# HELP app_state What it does.
# TYPE app_state stateset
app_state{app_state="run"} 1
app_state{app_state="stop"} 0
# HELP app_build Which.
# TYPE app_build info
app_build_info{version="1.2"} 1
# HELP app_depth_items Depth.
# TYPE app_depth_items gaugehistogram
# UNIT app_depth_items items
app_depth_items_bucket{le="1"} 2
app_depth_items_bucket{le="+Inf"} 4
app_depth_items_gcount 4
app_depth_items_gsum 9
# EOF
PAGE
);
# Names that this Prometheus takes escaped only.
$pages{utf8} = [ $pages{openmetrics}[0], <<"PAGE" ];
# HELP "app.w\xc3\xa4it" Waiting.
# TYPE "app.w\xc3\xa4it" histogram
{"app.w\xc3\xa4it_bucket",le="1.0"} 6
{"app.w\xc3\xa4it_bucket",le="3.0"} 8
{"app.w\xc3\xa4it_bucket",le="+Inf"} 8
{"app.w\xc3\xa4it_count"} 8
{"app.w\xc3\xa4it_sum"} 9
# HELP "app.hits" Hits.
# TYPE "app.hits" counter
{"app.hits_total","wh.ere"="in"} 7
# HELP "app.size" Sizes.
# TYPE "app.size" summary
{"app.size",quantile="0.5"} 3
{"app.size_count"} 4
{"app.size_sum"} 5
# EOF
PAGE
my @children;
END { kill 'KILL', @children if @children }
my %url;
for my $name (sort keys %pages) {
	my ($type, $page) = @{ $pages{$name} };
	my $listener = listen_tcp();
	$url{$name} = 'http://127.0.0.1:' . $listener->sockport . '/metrics';
	my $pid = fork // die "fork: $!";
	if ($pid) { push @children, $pid; next }
	@children = ();
	$SIG{$_} = 'DEFAULT' for qw(TERM INT HUP);
	while (my $c = $listener->accept) {
		my $in = '';
		while ($in !~ /\r\n\r\n/) { sysread $c, $in, 4096, length $in or last }
		syswrite $c, "HTTP/1.1 200 OK\r\nContent-Type: $type\r\nContent-Length: " . length($page) . "\r\nConnection: close\r\n\r\n$page";
	}
}

# What a reader must find, by what it asks for: sample => value. The targets' pages, line by line.
my %sent;
for my $name (grep { $_ ne 'utf8' } keys %pages) {
	for (split /\n/, $pages{$name}[1]) {
		next if /^#/;
		s{ # \{.*}{};
		my ($metric, $labels, $value) = /^(\w+)(?:\{(.*)\})? (\S+)/ or die $_;
		$labels = $labels ? ",$labels" : '';
		$sent{qq($metric\{merger_url="$url{$name}"$labels})} = $value;
	}
}

my $merger = daemon('exportermerger', http => 1, env => { MERGER_URLS => join ' ', values %url });

subtest 'promtool' => sub {
	my $page = http('GET', $merger->url . '/metrics')->{body};
	my $file = spew(test_path('page'), $page);
	my $lint = qx($promtool check metrics < $file 2>&1);
	my $inputs = spew(test_path('input'), $pages{text}[1]);
	my %before = map { ($_ => 1) } split /\n/, qx($promtool check metrics < $inputs 2>&1);
	is join("\n", grep { !$before{$_} } split /\n/, $lint), '', 'parses; no lint that the inputs lack';
	my $own = daemon('exportermerger', http => 1);
	spew($file, http('GET', $own->url . '/metrics')->{body});
	is qx($promtool check metrics < $file 2>&1), '', 'our own families are lint-clean';
};

SKIP: {
	skip 'python3-prometheus-client is not installed', 1 if !$has_python;
	my $r = http('GET', $merger->url . '/metrics', [ Accept => 'application/openmetrics-text' ]);
	my $file = spew(test_path('page.om'), $r->{body});
	my $said = qx($python -c 'from prometheus_client.openmetrics.parser import text_string_to_metric_families as p; print(len(list(p(open("$file", encoding="utf-8", newline="\\n").read()))))' 2>&1);
	like $said, qr/\A\d+\n\z/, 'python3-prometheus-client reads the OpenMetrics page';
}

# Prometheus always asks for OpenMetrics: for classic text, what it asks for goes through a relay.
my $relay = listen_tcp();
{
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		@children = ();
		$SIG{$_} = 'DEFAULT' for qw(TERM INT HUP);
		while (my $c = $relay->accept) {
			my $in = '';
			while ($in !~ /\r\n\r\n/) { sysread $c, $in, 4096, length $in or last }
			my $r = http('GET', $merger->url . '/metrics', [ Accept => 'text/plain' ]);
			syswrite $c, "HTTP/1.1 200 OK\r\nContent-Type: $r->{headers}{'content-type'}\r\nContent-Length: " . length($r->{body}) . "\r\nConnection: close\r\n\r\n$r->{body}";
		}
	}
	push @children, $pid;
}
my $port = do { my $l = listen_tcp(); $l->sockport };
spew(test_path('prometheus.yml'), <<"CONF");
global: { scrape_interval: 1s, scrape_timeout: 1s }
scrape_configs:
  - job_name: openmetrics
    honor_labels: true
    static_configs: [ { targets: [ '@{[ $merger->address ]}' ] } ]
  - job_name: text
    honor_labels: true
    static_configs: [ { targets: [ '127.0.0.1:@{[ $relay->sockport ]}' ] } ]
CONF
my $p = process('prometheus', [ $prometheus, '--config.file=' . test_path('prometheus.yml'), '--storage.tsdb.path=' . test_path('tsdb'),
	"--web.listen-address=127.0.0.1:$port", '--log.level=warn' ], ready => 0, exit => qr/^(?:0|15)$/, allow => qr/./);
my $api = "http://127.0.0.1:$port";

sub query
{
	my ($query) = @_;
	my $escaped = $query =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/egr;
	my $r = eval { http('GET', "$api/api/v1/query?query=$escaped") } or return [];
	return $r->{status} == 200 ? json_decode($r->{body})->{data}{result} : [];
}
sub quoted { return $_[0] =~ s/([\\"])/\\$1/gr =~ s/\n/\\n/gr }

for my $job (qw(openmetrics text)) {
	subtest "scraped as $job" => sub {
		my $up = wait_for { my $r = query(qq(up{job="$job"} == 1)); @$r && query(qq(app_hits{job="$job"}))->[0] } 'the first scrape', 60;
		ok $up, 'up';
		my %got;
		for my $series (@{ query(qq({__name__=~"app_.*",job="$job"})) }) {
			my %labels = %{ $series->{metric} };
			my $name = delete $labels{__name__};
			delete @labels{qw(job instance)};
			my $text = join ',', map { qq($_=") . quoted($labels{$_}) . '"' } sort { ($b eq 'merger_url') <=> ($a eq 'merger_url') || $a cmp $b } keys %labels;
			utf8::encode($text);
			$got{"$name\{$text}"} = $series->{value}[1];
		}
		# Prometheus reads le and quantile as text, and writes numbers its own way.
		my %expected = map { ($_ => $sent{$_}) } keys %sent;
		is join("\n", sort keys %got), join("\n", sort keys %expected), 'the same series';
		is join("\n", grep { !($got{$_} eq $expected{$_} || $got{$_} == $expected{$_}) } sort grep { exists $got{$_} } keys %expected), '', 'the same values';
		is scalar(@{ query(qq(merger_up{job="$job"} == 1)) }), 3, 'merger_up';
	};
}

subtest 'escaped names' => sub {
	for my $job (qw(openmetrics text)) {
		my $value = sub { my $r = query($_[0] =~ s/JOB/job="$job"/r); return @$r == 1 ? $r->[0]{value}[1] : scalar(@$r) . ' results' };
		is $value->('histogram_quantile(0.75, U__app_2e_w_e4_it_bucket{JOB})'), 1, "$job: a quantile of a histogram";
		is $value->('U__app_2e_w_e4_it_sum{JOB}'), 9, 'its sum';
		is $value->('U__app_2e_hits__total{JOB,U__wh_2e_ere="in"}'), 7, 'a counter';
		is $value->('U__app_2e_size{JOB,quantile="0.5"}'), 3, 'a summary';
		is $value->('U__app_2e_size_count{JOB}'), 4, 'its count';
	}
	# Prometheus looks for what TYPE and HELP say under the name without the suffix.
	my %type = (U__app_2e_w_e4_it => 'histogram', U__app_2e_size => 'summary');
	for my $name (sort keys %type) {
		my $about = json_decode(http('GET', "$api/api/v1/targets/metadata?metric=$name")->{body})->{data};
		is join(' ', map { $_->{type} } @$about), "$type{$name} $type{$name}", "the type of $name in both";
	}
	# A counter is escaped with its suffix (as the libraries of Prometheus do: escape, then format), so that its series has one name in both
	# formats. OpenMetrics' family is what is left of that without "_total", and ends in the "_" of the escape; U__app_2e_hits would be read
	# by no one as the family of U__app_2e_hits__total.
	my %family = (openmetrics => 'U__app_2e_hits_', text => 'U__app_2e_hits__total');
	for my $job (sort keys %family) {
		my $about = json_decode(http('GET', "$api/api/v1/targets/metadata?metric=$family{$job}")->{body})->{data};
		is join(' ', map { "$_->{target}{job} $_->{type} $_->{help}" } @$about), "$job counter Hits.", "$job: Prometheus knows what $family{$job} is";
	}
};

subtest 'targets go up' => sub {
	my $r = json_decode(http('GET', "$api/api/v1/targets")->{body});
	is join(' ', map { "$_->{labels}{job} $_->{health} $_->{lastError}" } sort { $a->{labels}{job} cmp $b->{labels}{job} } @{ $r->{data}{activeTargets} }),
		'openmetrics up  text up ', 'without a complaint';
};

done_testing;
