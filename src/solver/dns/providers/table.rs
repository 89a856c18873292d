//! The table.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dns_update::providers::azuredns::{AzureDnsConfig, AzureEnvironment};
use dns_update::providers::bluecatv2::BluecatV2Config;
use dns_update::providers::edgedns::EdgeDnsConfig;
use dns_update::providers::google_cloud_dns::GoogleCloudDnsConfig;
use dns_update::providers::infoblox::InfobloxConfig;
use dns_update::providers::lightsail::LightsailConfig;
use dns_update::providers::oraclecloud::OracleCloudConfig;
use dns_update::providers::rfc2136::DnsAddress;
use dns_update::providers::route53::Route53Config;
use dns_update::providers::volcengine::VolcengineConfig;
use dns_update::providers::yandexcloud::YandexCloudConfig;
use dns_update::{DnsUpdater, Error, Result, TsigAlgorithm};

use super::{Given, Kind, Need, Provider, REQUEST, Variable};

/// The provider that has credentials of its own on machines of AWS.
pub(super) const ROUTE53: &str = "route53";

const fn secret(names: &'static [&'static str]) -> Variable {
    Variable { names, kind: Kind::Secret, need: Need::Wanted }
}

const fn open(names: &'static [&'static str]) -> Variable {
    Variable { names, kind: Kind::Open, need: Need::Wanted }
}

const fn optional(names: &'static [&'static str]) -> Variable {
    Variable { names, kind: Kind::Open, need: Need::Optional }
}

const fn optional_secret(names: &'static [&'static str]) -> Variable {
    Variable { names, kind: Kind::Secret, need: Need::Optional }
}

const fn row(
    name: &'static str,
    documentation: &'static str,
    variables: &'static [Variable],
    build: fn(&Given) -> Result<DnsUpdater>,
) -> Provider {
    Provider { name, documentation, variables, build }
}

/// Every provider, by name.
#[rustfmt::skip]
pub const PROVIDERS: &[Provider] = &[
    row("alidns", "https://www.alibabacloud.com/help/en/dns/", &[secret(&["ALICLOUD_ACCESS_KEY", "Ali_Key"]), secret(&["ALICLOUD_SECRET_KEY", "Ali_Secret"]), optional_secret(&["ALICLOUD_SECURITY_TOKEN"])],
        |g| DnsUpdater::new_alidns(g.of("ALICLOUD_ACCESS_KEY"), g.of("ALICLOUD_SECRET_KEY"), None::<&str>, g.maybe("ALICLOUD_SECURITY_TOKEN"), None::<&str>, REQUEST)),
    row("arvancloud", "https://www.arvancloud.ir/api/cdn/4.0", &[secret(&["ARVANCLOUD_API_KEY", "Arvan_Token"])],
        |g| DnsUpdater::new_arvancloud(g.of("ARVANCLOUD_API_KEY"), REQUEST)),
    row("azuredns", "https://learn.microsoft.com/en-us/azure/dns/dns-sdk", &[open(&["AZURE_TENANT_ID", "AZUREDNS_TENANTID"]), open(&["AZURE_CLIENT_ID", "AZUREDNS_APPID"]), secret(&["AZURE_CLIENT_SECRET", "AZUREDNS_CLIENTSECRET"]), open(&["AZURE_SUBSCRIPTION_ID", "AZUREDNS_SUBSCRIPTIONID"]), open(&["AZURE_RESOURCE_GROUP"])],
        azuredns),
    row("baiducloud", "https://cloud.baidu.com/doc/DNS/index.html", &[secret(&["BAIDUCLOUD_ACCESS_KEY_ID"]), secret(&["BAIDUCLOUD_SECRET_ACCESS_KEY"])],
        |g| DnsUpdater::new_baiducloud(g.of("BAIDUCLOUD_ACCESS_KEY_ID"), g.of("BAIDUCLOUD_SECRET_ACCESS_KEY"), REQUEST)),
    row("bluecatv2", "https://docs.bluecatnetworks.com/", &[open(&["BLUECATV2_SERVER_URL"]), open(&["BLUECATV2_USERNAME"]), secret(&["BLUECATV2_PASSWORD"]), open(&["BLUECATV2_CONFIG_NAME"]), open(&["BLUECATV2_VIEW_NAME"])],
        bluecatv2),
    row("bunny", "https://docs.bunny.net/reference/dnszonepublic_index", &[secret(&["BUNNY_API_KEY"])],
        |g| DnsUpdater::new_bunny(g.of("BUNNY_API_KEY"), REQUEST)),
    row("cloudflare", "https://developers.cloudflare.com/fundamentals/api/get-started/create-token/", &[secret(&["CLOUDFLARE_DNS_API_TOKEN", "CF_DNS_API_TOKEN", "CF_Token"])],
        |g| DnsUpdater::new_cloudflare(g.of("CLOUDFLARE_DNS_API_TOKEN"), REQUEST)),
    row("cloudns", "https://www.cloudns.net/wiki/article/42/", &[open(&["CLOUDNS_AUTH_ID"]), secret(&["CLOUDNS_AUTH_PASSWORD"])],
        |g| DnsUpdater::new_cloudns(g.maybe("CLOUDNS_AUTH_ID"), None::<&str>, g.of("CLOUDNS_AUTH_PASSWORD"), REQUEST)),
    row("constellix", "https://api-docs.constellix.com/", &[secret(&["CONSTELLIX_API_KEY", "CONSTELLIX_Key"]), secret(&["CONSTELLIX_SECRET_KEY", "CONSTELLIX_Secret"])],
        |g| DnsUpdater::new_constellix(g.of("CONSTELLIX_API_KEY"), g.of("CONSTELLIX_SECRET_KEY"), REQUEST)),
    row("cpanel", "https://api.docs.cpanel.net/cpanel/tokens/", &[open(&["CPANEL_BASE_URL", "cPanel_Hostname"]), open(&["CPANEL_USERNAME", "cPanel_Username"]), secret(&["CPANEL_TOKEN", "cPanel_Apitoken"])],
        |g| DnsUpdater::new_cpanel(g.of("CPANEL_BASE_URL"), g.of("CPANEL_USERNAME"), g.of("CPANEL_TOKEN"), REQUEST)),
    row("desec", "https://desec.readthedocs.io/en/latest/auth/tokens.html", &[secret(&["DESEC_TOKEN", "DEDYN_TOKEN"])],
        |g| DnsUpdater::new_desec(g.of("DESEC_TOKEN"), REQUEST)),
    row("digitalocean", "https://docs.digitalocean.com/reference/api/create-personal-access-token/", &[secret(&["DO_AUTH_TOKEN", "DO_API_KEY"])],
        |g| DnsUpdater::new_digitalocean(g.of("DO_AUTH_TOKEN"), REQUEST)),
    row("dnsimple", "https://support.dnsimple.com/articles/api-access-token/", &[secret(&["DNSIMPLE_OAUTH_TOKEN", "DNSimple_OAUTH_TOKEN"]), open(&["DNSIMPLE_ACCOUNT_ID"])],
        |g| DnsUpdater::new_dnsimple(g.of("DNSIMPLE_OAUTH_TOKEN"), g.of("DNSIMPLE_ACCOUNT_ID"), REQUEST)),
    row("dnsmadeeasy", "https://api-docs.dnsmadeeasy.com/", &[secret(&["DNSMADEEASY_API_KEY", "ME_Key"]), secret(&["DNSMADEEASY_API_SECRET", "ME_Secret"])],
        |g| DnsUpdater::new_dnsmadeeasy(g.of("DNSMADEEASY_API_KEY"), g.of("DNSMADEEASY_API_SECRET"), REQUEST)),
    row("domeneshop", "https://api.domeneshop.no/docs/", &[secret(&["DOMENESHOP_API_TOKEN", "DOMENESHOP_Token"]), secret(&["DOMENESHOP_API_SECRET", "DOMENESHOP_Secret"])],
        |g| DnsUpdater::new_domeneshop(g.of("DOMENESHOP_API_TOKEN"), g.of("DOMENESHOP_API_SECRET"), REQUEST)),
    row("dreamhost", "https://help.dreamhost.com/hc/en-us/articles/4407354972692", &[secret(&["DREAMHOST_API_KEY", "DH_API_KEY"])],
        |g| DnsUpdater::new_dreamhost(g.of("DREAMHOST_API_KEY"), REQUEST)),
    row("dynu", "https://www.dynu.com/en-US/Support/API", &[secret(&["DYNU_API_KEY"])],
        |g| DnsUpdater::new_dynu(g.of("DYNU_API_KEY"), REQUEST)),
    row("easydns", "https://docs.sandbox.rest.easydns.net/", &[secret(&["EASYDNS_TOKEN", "EASYDNS_Token"]), secret(&["EASYDNS_KEY", "EASYDNS_Key"])],
        |g| DnsUpdater::new_easydns(g.of("EASYDNS_TOKEN"), g.of("EASYDNS_KEY"), REQUEST)),
    row("edgedns", "https://techdocs.akamai.com/edge-dns/reference/edge-dns-api", &[open(&["AKAMAI_HOST"]), secret(&["AKAMAI_CLIENT_TOKEN"]), secret(&["AKAMAI_CLIENT_SECRET"]), secret(&["AKAMAI_ACCESS_TOKEN"])],
        edgedns),
    row("exoscale", "https://community.exoscale.com/platform/iam/", &[secret(&["EXOSCALE_API_KEY"]), secret(&["EXOSCALE_API_SECRET", "EXOSCALE_SECRET_KEY"])],
        |g| DnsUpdater::new_exoscale(g.of("EXOSCALE_API_KEY"), g.of("EXOSCALE_API_SECRET"), REQUEST)),
    row("gandiv5", "https://api.gandi.net/docs/livedns/", &[secret(&["GANDIV5_PERSONAL_ACCESS_TOKEN", "GANDI_LIVEDNS_TOKEN"])],
        |g| DnsUpdater::new_gandiv5(g.of("GANDIV5_PERSONAL_ACCESS_TOKEN"), REQUEST)),
    row("gcloud", "https://cloud.google.com/iam/docs/keys-create-delete", &[open(&["GCE_PROJECT"]), secret(&["GCE_SERVICE_ACCOUNT"])],
        gcloud),
    row("gcore", "https://api.gcore.com/docs/dns", &[secret(&["GCORE_PERMANENT_API_TOKEN", "GCORE_Key"])],
        |g| DnsUpdater::new_gcore(g.of("GCORE_PERMANENT_API_TOKEN"), REQUEST)),
    row("glesys", "https://github.com/GleSYS/API", &[open(&["GLESYS_API_USER"]), secret(&["GLESYS_API_KEY"])],
        |g| DnsUpdater::new_glesys(g.of("GLESYS_API_USER"), g.of("GLESYS_API_KEY"), REQUEST)),
    row("godaddy", "https://developer.godaddy.com/keys", &[secret(&["GODADDY_API_KEY", "GD_Key"]), secret(&["GODADDY_API_SECRET", "GD_Secret"])],
        |g| DnsUpdater::new_godaddy(g.of("GODADDY_API_KEY"), g.of("GODADDY_API_SECRET"), REQUEST)),
    row("hetzner", "https://docs.hetzner.cloud/reference/cloud", &[secret(&["HETZNER_API_TOKEN", "HETZNER_TOKEN"])],
        |g| DnsUpdater::new_hetzner(g.of("HETZNER_API_TOKEN"), REQUEST)),
    row("hostingde", "https://www.hosting.de/api/", &[secret(&["HOSTINGDE_API_KEY", "HOSTINGDE_APIKEY"])],
        |g| DnsUpdater::new_hostingde(g.of("HOSTINGDE_API_KEY"), REQUEST)),
    row("hostinger", "https://developers.hostinger.com/", &[secret(&["HOSTINGER_API_TOKEN"])],
        |g| DnsUpdater::new_hostinger(g.of("HOSTINGER_API_TOKEN"), REQUEST)),
    row("huaweicloud", "https://support.huaweicloud.com/intl/en-us/api-dns/", &[secret(&["HUAWEICLOUD_ACCESS_KEY_ID"]), secret(&["HUAWEICLOUD_SECRET_ACCESS_KEY"]), open(&["HUAWEICLOUD_REGION"])],
        |g| DnsUpdater::new_huaweicloud(g.of("HUAWEICLOUD_ACCESS_KEY_ID"), g.of("HUAWEICLOUD_SECRET_ACCESS_KEY"), g.of("HUAWEICLOUD_REGION"), REQUEST)),
    row("ibmcloud", "https://cloud.ibm.com/docs/dns", &[open(&["SOFTLAYER_USERNAME"]), secret(&["SOFTLAYER_API_KEY"])],
        |g| DnsUpdater::new_ibmcloud(g.of("SOFTLAYER_USERNAME"), g.of("SOFTLAYER_API_KEY"), REQUEST)),
    row("infoblox", "https://docs.infoblox.com/", &[open(&["INFOBLOX_HOST"]), open(&["INFOBLOX_USERNAME"]), secret(&["INFOBLOX_PASSWORD"]), optional(&["INFOBLOX_PORT"]), optional(&["INFOBLOX_WAPI_VERSION"]), optional(&["INFOBLOX_DNS_VIEW", "Infoblox_View"])],
        infoblox),
    row("infomaniak", "https://developer.infomaniak.com/docs/api", &[secret(&["INFOMANIAK_ACCESS_TOKEN", "INFOMANIAK_API_TOKEN"])],
        |g| DnsUpdater::new_infomaniak(g.of("INFOMANIAK_ACCESS_TOKEN"), REQUEST)),
    row("inwx", "https://www.inwx.de/en/help/apidoc", &[open(&["INWX_USERNAME", "INWX_User"]), secret(&["INWX_PASSWORD", "INWX_Password"])],
        |g| DnsUpdater::new_inwx(g.of("INWX_USERNAME"), g.of("INWX_PASSWORD"), false, REQUEST)),
    row("ionos", "https://developer.hosting.ionos.com/docs/getstarted", &[secret(&["IONOS_API_KEY"])],
        |g| DnsUpdater::new_ionos(g.of("IONOS_API_KEY"), REQUEST)),
    row("ipv64", "https://ipv64.net/dyndns_updater_api", &[secret(&["IPV64_API_KEY", "IPv64_Token"])],
        |g| DnsUpdater::new_ipv64(g.of("IPV64_API_KEY"), REQUEST)),
    row("lightsail", "https://docs.aws.amazon.com/lightsail/2016-11-28/api-reference/", &[secret(&["AWS_ACCESS_KEY_ID"]), secret(&["AWS_SECRET_ACCESS_KEY"]), optional_secret(&["AWS_SESSION_TOKEN"])],
        lightsail),
    row("linode", "https://techdocs.akamai.com/linode-api/reference/get-started#personal-access-tokens", &[secret(&["LINODE_TOKEN", "LINODE_V4_API_KEY"])],
        |g| DnsUpdater::new_linode(g.of("LINODE_TOKEN"), REQUEST)),
    row("luadns", "https://luadns.com/api.html", &[open(&["LUADNS_API_USERNAME", "LUA_Email"]), secret(&["LUADNS_API_TOKEN", "LUA_Key"])],
        |g| DnsUpdater::new_luadns(g.of("LUADNS_API_USERNAME"), g.of("LUADNS_API_TOKEN"), REQUEST)),
    row("mythicbeasts", "https://www.mythic-beasts.com/support/api/dnsv2", &[open(&["MYTHICBEASTS_USERNAME", "MB_AK"]), secret(&["MYTHICBEASTS_PASSWORD", "MB_AS"])],
        |g| DnsUpdater::new_mythicbeasts(g.of("MYTHICBEASTS_USERNAME"), g.of("MYTHICBEASTS_PASSWORD"), REQUEST)),
    row("namedotcom", "https://www.name.com/api-docs", &[open(&["NAMECOM_USERNAME", "Namecom_Username"]), secret(&["NAMECOM_API_TOKEN", "Namecom_Token"])],
        |g| DnsUpdater::new_namedotcom(g.of("NAMECOM_USERNAME"), g.of("NAMECOM_API_TOKEN"), REQUEST)),
    row("namesilo", "https://www.namesilo.com/api-reference", &[secret(&["NAMESILO_API_KEY", "Namesilo_Key"])],
        |g| DnsUpdater::new_namesilo(g.of("NAMESILO_API_KEY"), REQUEST)),
    row("netcup", "https://helpcenter.netcup.com/en/wiki/general/our-api/", &[open(&["NETCUP_CUSTOMER_NUMBER", "NC_CID"]), secret(&["NETCUP_API_KEY", "NC_Apikey"]), secret(&["NETCUP_API_PASSWORD", "NC_Apipw"])],
        |g| DnsUpdater::new_netcup(g.of("NETCUP_CUSTOMER_NUMBER"), g.of("NETCUP_API_KEY"), g.of("NETCUP_API_PASSWORD"), REQUEST)),
    row("netlify", "https://docs.netlify.com/api/get-started/", &[secret(&["NETLIFY_TOKEN", "NETLIFY_ACCESS_TOKEN"])],
        |g| DnsUpdater::new_netlify(g.of("NETLIFY_TOKEN"), REQUEST)),
    row("nifcloud", "https://docs.nifcloud.com/dns/api/", &[secret(&["NIFCLOUD_ACCESS_KEY_ID"]), secret(&["NIFCLOUD_SECRET_ACCESS_KEY"])],
        |g| DnsUpdater::new_nifcloud(g.of("NIFCLOUD_ACCESS_KEY_ID"), g.of("NIFCLOUD_SECRET_ACCESS_KEY"), REQUEST)),
    row("ns1", "https://developer.ibm.com/apis/catalog/ns1--ibm-ns1-connect-api/", &[secret(&["NS1_API_KEY", "NS1_Key"])],
        |g| DnsUpdater::new_ns1(g.of("NS1_API_KEY"), REQUEST)),
    row("oraclecloud", "https://docs.oracle.com/en-us/iaas/Content/API/Concepts/apisigningkey.htm", &[open(&["OCI_TENANCY_OCID", "OCI_CLI_TENANCY"]), open(&["OCI_USER_OCID", "OCI_CLI_USER"]), open(&["OCI_PUBKEY_FINGERPRINT"]), secret(&["OCI_PRIVKEY", "OCI_CLI_KEY"]), optional_secret(&["OCI_PRIVKEY_PASS"]), open(&["OCI_REGION", "OCI_CLI_REGION"]), open(&["OCI_COMPARTMENT_OCID"])],
        oraclecloud),
    row("ovh", "https://help.ovhcloud.com/csm/en-api-getting-started-ovhcloud-api", &[open(&["OVH_ENDPOINT", "OVH_END_POINT"]), secret(&["OVH_APPLICATION_KEY", "OVH_AK"]), secret(&["OVH_APPLICATION_SECRET", "OVH_AS"]), secret(&["OVH_CONSUMER_KEY", "OVH_CK"])],
        |g| DnsUpdater::new_ovh(g.of("OVH_APPLICATION_KEY"), g.of("OVH_APPLICATION_SECRET"), g.of("OVH_CONSUMER_KEY"), g.of("OVH_ENDPOINT").parse()?, REQUEST)),
    row("pdns", "https://doc.powerdns.com/authoritative/http-api/", &[open(&["PDNS_API_URL", "PDNS_Url"]), secret(&["PDNS_API_KEY", "PDNS_Token"]), optional(&["PDNS_SERVER_NAME", "PDNS_ServerId"])],
        |g| DnsUpdater::new_pdns(g.of("PDNS_API_KEY"), g.maybe("PDNS_API_URL"), g.maybe("PDNS_SERVER_NAME"), REQUEST)),
    row("plesk", "https://docs.plesk.com/en-US/obsidian/api-rpc/about-rest-api.79359/", &[open(&["PLESK_SERVER_BASE_URL"]), secret(&["PLESK_API_KEY"])],
        |g| DnsUpdater::new_plesk(g.of("PLESK_SERVER_BASE_URL"), g.of("PLESK_API_KEY"), REQUEST)),
    row("porkbun", "https://porkbun.com/api/json/v3/documentation", &[secret(&["PORKBUN_API_KEY"]), secret(&["PORKBUN_SECRET_API_KEY"])],
        |g| DnsUpdater::new_porkbun(g.of("PORKBUN_API_KEY"), g.of("PORKBUN_SECRET_API_KEY"), REQUEST)),
    row("rfc2136", "https://bind9.readthedocs.io/en/stable/chapter7.html#dynamic-update-security", &[open(&["RFC2136_NAMESERVER", "NSUPDATE_SERVER"]), open(&["RFC2136_TSIG_KEY"]), secret(&["RFC2136_TSIG_SECRET"]), optional(&["RFC2136_TSIG_ALGORITHM"])],
        rfc2136),
    row(ROUTE53, "https://docs.aws.amazon.com/Route53/latest/APIReference/", &[optional_secret(&["AWS_ACCESS_KEY_ID"]), optional_secret(&["AWS_SECRET_ACCESS_KEY"]), optional_secret(&["AWS_SESSION_TOKEN"]), optional(&["AWS_HOSTED_ZONE_ID"])],
        route53),
    row("safedns", "https://developers.ukfast.io/documentation/safedns", &[secret(&["SAFEDNS_AUTH_TOKEN"])],
        |g| DnsUpdater::new_safedns(g.of("SAFEDNS_AUTH_TOKEN"), REQUEST)),
    row("scaleway", "https://www.scaleway.com/en/docs/iam/how-to/create-api-keys/", &[secret(&["SCW_SECRET_KEY", "SCALEWAY_API_TOKEN"])],
        |g| DnsUpdater::new_scaleway(g.of("SCW_SECRET_KEY"), REQUEST)),
    row("selectel", "https://docs.selectel.ru/en/api/cloud-domains-dns-api/", &[open(&["SELECTELV2_USERNAME"]), secret(&["SELECTELV2_PASSWORD"]), open(&["SELECTELV2_ACCOUNT_ID"]), open(&["SELECTELV2_PROJECT_ID"])],
        |g| DnsUpdater::new_selectel(g.of("SELECTELV2_USERNAME"), g.of("SELECTELV2_PASSWORD"), g.of("SELECTELV2_ACCOUNT_ID"), g.of("SELECTELV2_PROJECT_ID"), REQUEST)),
    row("simplycom", "https://www.simply.com/en/docs/api/", &[open(&["SIMPLY_ACCOUNT_NAME", "SIMPLY_AccountName"]), secret(&["SIMPLY_API_KEY", "SIMPLY_ApiKey"])],
        |g| DnsUpdater::new_simplycom(g.of("SIMPLY_ACCOUNT_NAME"), g.of("SIMPLY_API_KEY"), REQUEST)),
    row("spaceship", "https://docs.spaceship.dev/", &[secret(&["SPACESHIP_API_KEY"]), secret(&["SPACESHIP_API_SECRET"])],
        |g| DnsUpdater::new_spaceship(g.of("SPACESHIP_API_KEY"), g.of("SPACESHIP_API_SECRET"), REQUEST)),
    row("tencentcloud", "https://www.tencentcloud.com/document/product/1157", &[secret(&["TENCENTCLOUD_SECRET_ID", "Tencent_SecretId"]), secret(&["TENCENTCLOUD_SECRET_KEY", "Tencent_SecretKey"]), optional(&["TENCENTCLOUD_REGION"]), optional_secret(&["TENCENTCLOUD_SESSION_TOKEN"])],
        |g| DnsUpdater::new_tencentcloud(g.of("TENCENTCLOUD_SECRET_ID"), g.of("TENCENTCLOUD_SECRET_KEY"), g.maybe("TENCENTCLOUD_REGION"), g.maybe("TENCENTCLOUD_SESSION_TOKEN"), REQUEST)),
    row("transip", "https://api.transip.nl/rest/docs.html", &[open(&["TRANSIP_ACCOUNT_NAME", "TRANSIP_Username"]), secret(&["TRANSIP_PRIVATE_KEY"])],
        |g| DnsUpdater::new_transip(g.of("TRANSIP_ACCOUNT_NAME"), g.of("TRANSIP_PRIVATE_KEY"), true, REQUEST)),
    row("ultradns", "https://docs.ultradns.com/", &[open(&["ULTRADNS_USERNAME", "UDA_USERNAME"]), secret(&["ULTRADNS_PASSWORD"])],
        |g| DnsUpdater::new_ultradns(g.of("ULTRADNS_USERNAME"), g.of("ULTRADNS_PASSWORD"), None, REQUEST)),
    row("vercel", "https://vercel.com/docs/rest-api", &[secret(&["VERCEL_API_TOKEN", "VERCEL_TOKEN"]), optional(&["VERCEL_TEAM_ID"])],
        |g| DnsUpdater::new_vercel(g.of("VERCEL_API_TOKEN"), g.maybe("VERCEL_TEAM_ID"), REQUEST)),
    row("volcengine", "https://www.volcengine.com/docs/6758", &[secret(&["VOLC_ACCESSKEY", "Volcengine_ACCESS_KEY_ID"]), secret(&["VOLC_SECRETKEY", "Volcengine_SECRET_ACCESS_KEY"])],
        volcengine),
    row("vultr", "https://docs.vultr.com/api/", &[secret(&["VULTR_API_KEY"])],
        |g| DnsUpdater::new_vultr(g.of("VULTR_API_KEY"), REQUEST)),
    row("websupport", "https://rest.websupport.sk/v2/docs", &[secret(&["WEBSUPPORT_API_KEY", "WS_ApiKey"]), secret(&["WEBSUPPORT_SECRET", "WS_ApiSecret"])],
        |g| DnsUpdater::new_websupport(g.of("WEBSUPPORT_API_KEY"), g.of("WEBSUPPORT_SECRET"), REQUEST)),
    row("yandexcloud", "https://yandex.cloud/en/docs/dns/", &[secret(&["YANDEX_CLOUD_IAM_TOKEN"]), open(&["YANDEX_CLOUD_FOLDER_ID", "YC_Folder_ID"])],
        yandexcloud),
    row("zoneee", "https://api.zone.eu/v2", &[open(&["ZONEEE_API_USER", "ZONE_Username"]), secret(&["ZONEEE_API_KEY", "ZONE_Key"])],
        |g| DnsUpdater::new_zoneeu(g.of("ZONEEE_API_USER"), g.of("ZONEEE_API_KEY"), REQUEST)),
];

fn azuredns(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_azuredns(AzureDnsConfig {
        tenant_id: given.text("AZURE_TENANT_ID"),
        client_id: given.text("AZURE_CLIENT_ID"),
        client_secret: given.text("AZURE_CLIENT_SECRET"),
        subscription_id: given.text("AZURE_SUBSCRIPTION_ID"),
        resource_group: given.text("AZURE_RESOURCE_GROUP"),
        environment: AzureEnvironment::Public,
        request_timeout: REQUEST,
    })
}

fn bluecatv2(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_bluecatv2(BluecatV2Config {
        server_url: given.text("BLUECATV2_SERVER_URL"),
        username: given.text("BLUECATV2_USERNAME"),
        password: given.text("BLUECATV2_PASSWORD"),
        config_name: given.text("BLUECATV2_CONFIG_NAME"),
        view_name: given.text("BLUECATV2_VIEW_NAME"),
        skip_deploy: false,
        request_timeout: REQUEST,
    })
}

fn edgedns(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_edgedns(EdgeDnsConfig {
        host: given.text("AKAMAI_HOST"),
        client_token: given.text("AKAMAI_CLIENT_TOKEN"),
        client_secret: given.text("AKAMAI_CLIENT_SECRET"),
        access_token: given.text("AKAMAI_ACCESS_TOKEN"),
        account_switch_key: None,
        request_timeout: REQUEST,
    })
}

fn gcloud(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_google_cloud_dns(GoogleCloudDnsConfig {
        service_account_json: given.text("GCE_SERVICE_ACCOUNT"),
        project_id: given.text("GCE_PROJECT"),
        managed_zone: None,
        private_zone: false,
        impersonate_service_account: None,
        request_timeout: REQUEST,
    })
}

fn infoblox(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_infoblox(InfobloxConfig {
        host: given.text("INFOBLOX_HOST"),
        port: given.maybe_text("INFOBLOX_PORT"),
        username: given.text("INFOBLOX_USERNAME"),
        password: given.text("INFOBLOX_PASSWORD"),
        wapi_version: given.maybe_text("INFOBLOX_WAPI_VERSION"),
        dns_view: given.maybe_text("INFOBLOX_DNS_VIEW"),
        request_timeout: REQUEST,
    })
}

fn lightsail(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_lightsail(LightsailConfig {
        access_key_id: given.text("AWS_ACCESS_KEY_ID"),
        secret_access_key: given.text("AWS_SECRET_ACCESS_KEY"),
        session_token: given.maybe_text("AWS_SESSION_TOKEN"),
        region: None,
        domain: None,
        request_timeout: REQUEST,
    })
}

fn oraclecloud(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_oraclecloud(OracleCloudConfig {
        tenancy_ocid: given.text("OCI_TENANCY_OCID"),
        user_ocid: given.text("OCI_USER_OCID"),
        fingerprint: given.text("OCI_PUBKEY_FINGERPRINT"),
        private_key_pem: given.text("OCI_PRIVKEY"),
        private_key_password: given.maybe_text("OCI_PRIVKEY_PASS"),
        region: given.text("OCI_REGION"),
        compartment_ocid: given.text("OCI_COMPARTMENT_OCID"),
        request_timeout: REQUEST,
    })
}

/// Over TCP: an update that is sent twice because its answer was lost is one that nobody asked for.
fn rfc2136(given: &Given) -> Result<DnsUpdater> {
    let server = given.of("RFC2136_NAMESERVER");
    let address = server.parse().or_else(|_| server.parse().map(|address: IpAddr| SocketAddr::new(address, 53)));
    let address = address.map_err(|_| Error::Parse(format!("RFC2136_NAMESERVER {server:?} is not an address, or one with a port")))?;
    let algorithm = given.maybe("RFC2136_TSIG_ALGORITHM").unwrap_or("hmac-sha256");
    let algorithm = match algorithm.trim_end_matches('.').to_ascii_lowercase().as_str() {
        "hmac-sha224" => TsigAlgorithm::HmacSha224,
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        other => return Err(Error::Parse(format!("RFC2136_TSIG_ALGORITHM {other:?} is none of hmac-sha256, hmac-sha384, hmac-sha512"))),
    };
    let key = BASE64_STANDARD.decode(given.of("RFC2136_TSIG_SECRET").trim());
    let key = key.map_err(|_| Error::Parse("RFC2136_TSIG_SECRET is not base64".to_owned()))?;
    DnsUpdater::new_rfc2136_tsig(DnsAddress::Tcp(address), given.of("RFC2136_TSIG_KEY"), key, algorithm)
}

fn route53(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_route53(Route53Config {
        access_key_id: given.text("AWS_ACCESS_KEY_ID"),
        secret_access_key: given.text("AWS_SECRET_ACCESS_KEY"),
        session_token: given.maybe_text("AWS_SESSION_TOKEN"),
        region: None,
        hosted_zone_id: given.maybe_text("AWS_HOSTED_ZONE_ID"),
        private_zone_only: None,
        endpoint: None,
    })
}

fn volcengine(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_volcengine(VolcengineConfig {
        access_key: given.text("VOLC_ACCESSKEY"),
        secret_key: given.text("VOLC_SECRETKEY"),
        region: None,
        host: None,
        scheme: None,
        request_timeout: REQUEST,
    })
}

fn yandexcloud(given: &Given) -> Result<DnsUpdater> {
    DnsUpdater::new_yandexcloud(YandexCloudConfig {
        iam_token_b64: given.text("YANDEX_CLOUD_IAM_TOKEN"),
        folder_id: given.text("YANDEX_CLOUD_FOLDER_ID"),
        request_timeout: REQUEST,
    })
}
