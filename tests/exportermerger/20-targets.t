#!/usr/bin/env perl

# Targets that misbehave beside targets that do not: the page is valid, complete for the others, and in time.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Socket qw(SOL_SOCKET SO_LINGER);

my $merger_bin = eg_bin('exportermerger');
my @children;
END { kill 'KILL', @children if @children }

# A server in a child: answer($socket) is called for every connection after its request was read.
sub target
{
	my ($answer) = @_;
	my $listener = listen_tcp();
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		@children = ();
		$SIG{$_} = 'DEFAULT' for qw(TERM INT HUP);
		$SIG{PIPE} = 'IGNORE';
		$SIG{CHLD} = 'IGNORE';
		while (my $c = $listener->accept) {
			# One that takes its time must not hold up the next scrape.
			next if fork;
			my $in = '';
			while ($in !~ /\r\n\r\n/) { sysread $c, $in, 4096, length $in or last }
			$answer->($c, $in);
			close $c;
			POSIX::_exit(0);
		}
		POSIX::_exit(0);
	}
	push @children, $pid;
	return 'http://127.0.0.1:' . $listener->sockport . '/metrics';
}
use POSIX ();

sub page
{
	my ($page, $type) = @_;
	$type //= 'text/plain; version=0.0.4';
	return target(sub { syswrite $_[0], "HTTP/1.1 200 OK\r\nContent-Type: $type\r\nContent-Length: " . length($page) . "\r\nConnection: close\r\n\r\n$page" });
}
sub raw { my ($bytes) = @_; return target(sub { syswrite $_[0], $bytes }) }

my $om = 'application/openmetrics-text; version=1.0.0; charset=utf-8';
my $head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
my $gone = do { my $l = listen_tcp(); 'http://127.0.0.1:' . $l->sockport . '/metrics' };
my $bomb = do { open my $z, '-|', 'head -c 100000000 /dev/zero | gzip' or die; binmode $z; local $/; <$z> };
my %bad = (
	dead => [ $gone, 'connect' ],
	hang => [ target(sub { sysread $_[0], my $b, 1 }), 'timeout' ],
	drip => [ target(sub { my $c = shift; syswrite $c, "${head}\r\n"; while (syswrite $c, "a") { select undef, undef, undef, 0.02 } }), 'timeout' ],
	gigabyte => [ target(sub { my $c = shift; syswrite $c, "${head}Content-Length: 1000000000\r\n\r\n"; my $b = "a 1\n" x 50_000; 1 while syswrite $c, $b }), 'too_large' ],
	endless => [ target(sub { my $c = shift; syswrite $c, "${head}\r\n"; my $b = "a 1\n" x 50_000; 1 while syswrite $c, $b }), 'too_large' ],
	bomb => [ raw("${head}Content-Encoding: gzip\r\nContent-Length: " . length($bomb) . "\r\nConnection: close\r\n\r\n$bomb"), 'too_large' ],
	html => [ page('<html><body>404</body></html>', 'text/html'), 'content_type' ],
	html_as_text => [ page("<html><body>404</body></html>\n"), 'malformed' ],
	status => [ raw("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\na 1\n"), 'status' ],
	redirect => [ raw("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), 'status' ],
	not_http => [ raw("220 smtp ready\r\n"), 'protocol' ],
	cut => [ raw("${head}Content-Length: 100\r\n\r\na 1\nb 2"), 'reset' ],
	half_line => [ page("half_whole 1\nhalf_cut 12"), undef ],
	cut_openmetrics => [ page("cut_om 1\n", $om), 'malformed' ],
	wrong_type => [ page("# TYPE x foo\nx 1\n"), 'malformed' ],
	wrong_sample => [ page("# TYPE x counter\nx_bucket{le=\"1\"} 1\nx 1\n# EOF\n", $om), 'malformed' ],
	bad_value => [ page("x one\n"), 'malformed' ],
	bad_utf8 => [ page("x{a=\"\xff\"} 1\n"), 'malformed' ],
	type_conflict => [ page("# TYPE shared counter\nshared 5\n"), undef ],
	duplicates => [ page("dup 1\ndup 2\nother 1\ndup{a=\"1\"} 3\n"), undef ],
	values => [ page("v_nan NaN\nv_inf +Inf\nv_ninf -Inf\nv_big 1e308\n"), undef ],
	escapes => [ page("esc{a=\"\\\\ \\\" \\n \xc3\xa9 }{,\",merger_url=\"mine\"} 1\n"), undef ],
	exemplars => [ page("# TYPE ex counter\nex_total 3 1700000000.5 # {trace_id=\"abc\"} 1 1700000000\n# EOF\n", $om), undef ],
	utf8 => [ page("# TYPE \"z\xc3\xa4hler\" gauge\n{\"z\xc3\xa4hler\",a=\"1\"} 5\n# EOF\n", $om), undef ],
	timestamps => [ page("ts 1 1700000000500\n"), undef ],
	no_socket => [ 'unix:' . test_path('nobody.sock'), 'connect' ],
);
# A daemon that lives, over RPC, and one that accepts and says nothing.
my $other = daemon('exportermerger', http => 1, rpc => 'other.sock');
my $silent = listen_unix(test_path('silent.sock'));
$bad{silent_socket} = [ 'unix:' . test_path('silent.sock'), 'timeout' ];
my %good = map { ("good$_" => page("# HELP shared The same.\n# TYPE shared gauge\nshared{n=\"$_\"} $_\n" . join '', map { "good$_ $_\n" } 1 .. 50)) } 1 .. 3;

my @urls = (values %good, (map { $_->[0] } values %bad), "unix:other.sock#prefix=other_&zone=a%20b");
my $merger = daemon('exportermerger', http => 1, env => { MERGER_URLS => "@urls", MERGER_MAX_BODY => '1MB', MERGER_TARGET_TIMEOUT => '30s', MERGER_SCRAPE_TIMEOUT => '1s' });

sub scrape
{
	my ($timeout, @headers) = @_;
	my $t = Time::HiRes::time();
	my $r = http('GET', $merger->url . '/metrics', [ 'X-Prometheus-Scrape-Timeout-Seconds' => $timeout, @headers ]);
	return ($r, Time::HiRes::time() - $t);
}

# The page within the time that its reader gives it, in one of three scrapes: the machine is shared, and what comes after
# the targets' time is up has a tenth of it. Who waits for the slowest target (30 s) is late every time.
sub in_time
{
	my ($what, $timeout, $r, $took, @headers) = @_;
	my $gzip = $r->{headers}{'content-encoding'};
	my $complete = sub { return scalar(() = $r->{body} =~ /^good\d+\{/mg) };
	for (1 .. 2) {
		last if $took < $timeout && ($gzip || $complete->() == 150);
		note sprintf '%s: %.2f s, %d samples, once more', $what, $took, $complete->();
		($r, $took) = scrape($timeout, @headers);
	}
	cmp_ok $took, '<', $timeout, $what;
	is $complete->(), 150, 'and complete for those that answer' if !$gzip;
	return;
}
sub value { my ($page, $series) = @_; return $page =~ /^\Q$series\E (\S+)/m ? $1 : undef }

my ($r, $took) = scrape(4);
is $r->{status}, 200, 'a page';
my @first = ($r, $took);
is $r->{headers}{'content-type'}, 'text/plain; version=0.0.4; charset=utf-8', 'classic text';
my $page = $r->{body};

for my $name (sort keys %good) {
	my $url = $good{$name};
	is value($page, qq(merger_up{merger_url="$url"})), 1, "$name is up";
	is scalar(() = $page =~ /^good\d+\{merger_url="\Q$url\E"\} \d+$/mg), 50, 'and complete';
}
for my $name (sort keys %bad) {
	my ($url, $reason) = @{ $bad{$name} };
	is value($page, qq(merger_up{merger_url="$url"})), $reason ? 0 : 1, "$name: merger_up";
	my @reasons = $page =~ /^merger_scrape_failures_total\{merger_url="\Q$url\E",reason="(\w+)"\} 1$/mg;
	is "@reasons", $reason // '', "$name: reason";
	my $has = () = $page =~ /^(?!merger_)\w+\{(?:\w+="\w*",)*merger_url="\Q$url\E"/mg;
	$reason ? is $has, 0, "$name: nothing of it" : cmp_ok $has, '>', 0, "$name: is there";
}
my %url = map { ($_ => $bad{$_}[0]) } keys %bad;
is value($page, qq(half_whole{merger_url="$url{half_line}"})), 1, 'the whole line';
unlike $page, qr/half_cut/, 'not the half one';
like $page, qr/^# TYPE shared untyped$/m, 'two types: untyped';
is scalar(() = $page =~ /^shared\{/mg), 4, 'with all samples';
is value($page, qq(dup{merger_url="$url{duplicates}"})), 1, 'the first of two';
is value($page, qq(dup{merger_url="$url{duplicates}",a="1"})), 3, 'and the other series of that name';
is value($page, "v_$_->[0]\{merger_url=\"$url{values}\"}"), $_->[1], $_->[0] for [ nan => 'NaN' ], [ inf => '+Inf' ], [ ninf => '-Inf' ], [ big => '1e308' ];
like $page, qr/^esc\{merger_url="\Q$url{escapes}\E",a="\\\\ \\" \\n \xc3\xa9 \}\{,",exported_merger_url="mine"\} 1$/m, 'escapes, and its own merger_url';
like $page, qr/^ts\{merger_url="\Q$url{timestamps}\E"\} 1 1700000000500$/m, 'timestamps';
is value($page, qq(merger_conflicts_total{conflict="$_->[1]",merger_url="$url{$_->[0]}"})), $_->[2], "conflict $_->[1]"
	for [ half_line => 'newline', 1 ], [ duplicates => 'series', 1 ], [ duplicates => 'reopened', 1 ], [ escapes => 'label', 1 ];
is value($page, 'other_merger_targets{merger_url="unix:other.sock",zone="a b"}'), 0, 'over RPC, with its prefix and label';
is scalar(() = $page =~ /^\S+\{merger_url="unix:other\.sock",(?!.*zone="a b")/mg), 0, 'all of it';
my %types;
$types{$_}++ for $page =~ /^# TYPE (\S+)/mg;
is join(' ', grep { $types{$_} > 1 } keys %types), '', 'no family twice';
is join(' ', map { ($page =~ /^($_)$/mg)[1] // () } '[^#\s]\S*'), '', 'no series twice';
# One that had to be escaped stands where its real name belongs.
is_deeply [ grep { !/^U__/ } $page =~ /^# TYPE (\S+)/mg ], [ sort grep { !/^U__/ } keys %types ], 'families by name';

sub valid
{
	my ($format, $body) = @_;
	my $file = spew(test_path('merged'), $body);
	return qx($merger_bin --check --format $format < $file);
}
is valid('text', $page), '', 'valid';
in_time("within the reader's time", 4, @first);

my @openmetrics_gzip = (Accept => 'application/openmetrics-text; version=1.0.0', 'Accept-Encoding' => 'gzip');
($r, $took) = scrape(3, @openmetrics_gzip);
in_time('OpenMetrics in gzip too', 3, $r, $took, @openmetrics_gzip);
is $r->{headers}{'content-encoding'}, 'gzip', 'gzip';
spew(test_path('page.gz'), $r->{body});
my $openmetrics = do { my $path = test_path('page.gz'); qx(gzip -dc $path) };
is valid('openmetrics', $openmetrics), '', 'valid OpenMetrics';
like $openmetrics, qr/^ex_total\{merger_url="\Q$url{exemplars}\E"\} 3 1700000000\.5 # \{trace_id="abc"\} 1 1700000000$/m, 'exemplars';
like $openmetrics, qr/^ts\{merger_url="\Q$url{timestamps}\E"\} 1 1700000000\.5$/m, 'timestamps in seconds';
is $r->{headers}{'content-type'}, "$om", 'its type';

subtest 'names that are not plain' => sub {
	like $page, qr/^U__z_e4_hler\{merger_url="\Q$url{utf8}\E",a="1"\} 5$/m, 'escaped for who did not speak of them';
	($r) = scrape(1, Accept => 'application/openmetrics-text; version=1.0.0; escaping=allow-utf-8');
	like $r->{headers}{'content-type'}, qr/; escaping=allow-utf-8$/, 'allowed';
	like $r->{body}, qr/^\{"z\xc3\xa4hler",merger_url="\Q$url{utf8}\E",a="1"\} 5$/m, 'as they are';
	like $r->{body}, qr/^merger_up\{/m, 'plain ones stay plain';
};

subtest 'short deadlines' => sub {
	for my $timeout (1, 2) {
		($r, $took) = scrape($timeout);
		is $r->{status}, 200, "a page for $timeout s";
		is valid('text', $r->{body}), '', 'valid';
		in_time('in time', $timeout, $r, $took);
	}
	is((scrape($_))[0]{status}, 200, "a timeout of '$_'") for '1x', '0.5e0';
};

subtest 'a page at a time' => sub {
	my @r = http_many([ map { { url => $merger->url, target => '/metrics', headers => [ 'X-Prometheus-Scrape-Timeout-Seconds' => 1 ] } } 1 .. 8 ], connections => 8, timeout => 30);
	my %n;
	$n{ $_->{status} }++ for @r;
	is $n{200}, 4, 'so many at once';
	is $n{503}, 4, 'others are told to come back';
	my $c = EG::HTTP->new($merger->url);
	$c->send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	undef $c;
	($r) = scrape(1);
	is $r->{status}, 200, 'after a reader that left';
};

subtest 'two hundred that hang' => sub {
	my @hang = map { listen_unix(test_path("hang.$_.sock")) } 1 .. 200;
	my $m = daemon('exportermerger', http => 1, env => { MERGER_URLS => join(' ', map { "unix:$_" } 'z.sock', map { "hang.$_.sock" } 1 .. 200) });
	my $z = daemon('exportermerger', http => 1, rpc => 'z.sock');
	# The last by name: all others are asked before it.
	my $page;
	for (1 .. 3) {
		$page = http('GET', $m->url . '/metrics', [ 'X-Prometheus-Scrape-Timeout-Seconds' => 2 ])->{body};
		last if value($page, 'merger_up{merger_url="unix:z.sock"}') == 1;
	}
	is value($page, 'merger_up{merger_url="unix:z.sock"}'), 1, 'who answers is asked in time';
	is scalar(() = $page =~ /^merger_up\{merger_url="unix:hang\.\d+\.sock"\} 0$/mg), 200, 'the others are down';
};

subtest 'who is not there costs no time' => sub {
	close listen_unix(test_path('left.sock')); # the file stays, nobody listens
	my $m = daemon('exportermerger', http => 1, env => { MERGER_URLS => join ' ', map { "unix:$_" } qw(left.sock never.sock) });
	my $best = 9;
	my $page;
	for (1 .. 5) {
		my $began = Time::HiRes::time();
		$page = http('GET', $m->url . '/metrics')->{body};
		my $took = Time::HiRes::time() - $began;
		$best = $took if $took < $best;
	}
	is value($page, "merger_up{merger_url=\"unix:$_.sock\"}"), 0, "$_ is down" for qw(left never);
	is value($page, "merger_scrape_failures_total{merger_url=\"unix:$_.sock\",reason=\"connect\"}"), 5, 'and was asked each time' for qw(left never);
	cmp_ok $best, '<', 0.15, sprintf 'a page took %.0f ms', $best * 1e3;
};

subtest 'other requests' => sub {
	is http('GET', $merger->url . '/healthz')->{status}, 200, 'healthz';
	is http('POST', $merger->url . '/metrics', [], 'x')->{status}, 405, 'POST';
	is http('GET', $merger->url . '/nothing')->{status}, 404, 'elsewhere';
	my $head = http('HEAD', $merger->url . '/metrics');
	is $head->{status} . $head->{body}, '200', 'HEAD';
};

cmp_ok rss_kb($merger->pid), '<', 40 * 1024, 'memory stays small' if eg_bin() =~ m{build/bin$};

done_testing;
