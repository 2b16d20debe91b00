#!/usr/bin/env perl

# The settings of the Go redis-proxy, by environment and by flag: names and meanings are kept.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;

# Environment name, flag, a value, and how --print-config shows it.
my @settings = (
	[ 'LOCAL_ADDRESS', 'local-address', '127.0.0.1:26379' ], [ 'REMOTE_ADDRESS', 'remote-address', 'redis.example:6380' ],
	[ 'READER_ROUTING', 'reader-routing', 'true' ], [ 'READER_REMOTE_ADDRESS', 'reader-remote-address', 'replica.example:6380' ],
	[ 'MONITOR_ADDRESS', 'monitor-address', '127.0.0.1:9090' ], [ 'MAX_CONNECTIONS', 'max-connections', '77' ],
	[ 'MAX_IDLE_CONNECTIONS', 'max-idle-connections', '7' ], [ 'MIN_IDLE_CONNECTIONS', 'min-idle-connections', '3' ],
	[ 'MAX_IDLE_TIME', 'max-idle-time', '90s', qr/^(?:90s|90000ms|1m30s)$/ ], [ 'MAX_LIFETIME', 'max-lifetime', '5m', qr/^(?:5m|300s)$/ ],
	[ 'JITTER_PERCENTAGE', 'jitter-percentage', '0.25' ], [ 'CONNECT_TIMEOUT', 'connect-timeout', '3s', qr/^3s$/ ],
	[ 'HTTP_KEEPALIVE', 'http-keepalive', 'false' ], [ 'REDISPROXY_POOL_STRATEGY', 'pool-strategy', 'lifo' ],
	[ 'REDISPROXY_PING_INTERVAL', 'ping-interval', '5s', qr/^5s$/ ],
);

sub shown
{
	my ($env, @args) = @_;
	local %ENV = (PATH => $ENV{PATH}, %$env);
	my %values;
	open my $out, '-|', eg_bin('redisproxy'), '--print-config', @args or die "redisproxy: $!";
	while (<$out>) { $values{$1} = $2 if /^([A-Z_]+)=(.*)/ }
	close $out or die 'redisproxy --print-config failed';
	return \%values;
}

my $by_environment = shown({ map { $_->[0] => $_->[2] } @settings });
my $by_flag = shown({}, map { "--$_->[1]=$_->[2]" } @settings);
for (@settings) {
	my ($name, $flag, $value, $shown) = @$_;
	like $by_environment->{$name}, $shown // qr/^\Q$value\E$/, $name;
	is $by_flag->{$name}, $by_environment->{$name}, "--$flag is the same";
}
is shown({ REMOTE_ADDRESS => 'a:1' }, '--remote-address=b:2')->{REMOTE_ADDRESS}, 'b:2', 'a flag beats the environment';
my $default = shown({});
is_deeply [ @$default{qw(LOCAL_ADDRESS REMOTE_ADDRESS READER_ROUTING)} ], [qw(127.0.0.1:16379 127.0.0.1:6379 false)], 'defaults';
unlike join("\n", %{ shown({ REMOTE_PASSWORD => 'hush-hush' }) }), qr/hush/, 'a password is not shown';
for ([ 'READER_ROUTING', 'perhaps' ], [ 'MAX_CONNECTIONS', '-1' ], [ 'JITTER_PERCENTAGE', '2' ], [ 'MAX_IDLE_TIME', 'long' ]) {
	my ($name, $value) = @$_;
	local $ENV{$name} = $value;
	my $said = qx{@{[ eg_bin('redisproxy') ]} --check-config 2>&1};
	is $? >> 8, 78, "$name=$value is refused";
	like $said, qr/$name/, 'by name';
}
# What is refused, or warned of, in one line that says what to do.
sub says
{
	my (@args) = @_;
	my $said = qx{@{[ join ' ', eg_bin('redisproxy'), @args ]} 2>&1};
	return ($? >> 8, $said);
}
my $broken = spew(test_path('broken.pem'), "no certificate\n");
for (
	[ [qw(--tls --tls-ca-file=/nope)], 78, qr{--tls-ca-file: cannot read \\?"/nope\\?": No such file} ],
	[ [qw(--tls --tls-cert-file=/nope)], 78, qr{--tls-cert-file: cannot read \\?"/nope\\?": No such file} ],
	[ [ qw(--tls --tls-key-file=/nope), "--tls-cert-file=$broken" ], 78, qr{--tls-key-file: cannot read \\?"/nope\\?": No such file} ],
	[ [ '--tls', "--tls-ca-file=$broken" ], 78, qr{--tls-ca-file: \\?"\Q$broken\E\\?": } ],
	[ [qw(--reader-routing true)], 64, qr{--reader-routing takes no value of its own: --reader-routing=true} ],
	[ [qw(--mode=sentinel --sentinel-addresses=redis://127.0.0.1:26379)], 78, qr{REDISPROXY_SENTINEL_ADDRESSES: host:port} ],
	[ [qw(--remote-address redis://127.0.0.1:6379)], 64, qr{--remote-address.*redis://127.0.0.1:6379.*host:port} ])
{
	my ($args, $code, $like) = @$_;
	my ($status, $said) = says('--check-config', @$args);
	is $status, $code, "@$args: $code";
	like $said, $like, 'and why';
	unlike $said, qr/out of memory/;
}
done_testing;
